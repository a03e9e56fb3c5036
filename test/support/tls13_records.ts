/** The client's side of TLS 1.3 with control over every record: Node does the handshake, what follows is sealed here. */
import { createCipheriv, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';

export const RecordType = { alert: 21, handshake: 22, data: 23 } as const;

/** A KeyUpdate message (RFC 8446, 4.6.3). */
export const keyUpdate = (answer: boolean) => Buffer.from([24, 0, 0, 1, answer ? 1 : 0]);

const CIPHER = 'TLS_AES_128_GCM_SHA256';
const HEADER = 5;
const TAG = 16;

export class Tls13Records {
  readonly socket: Socket;
  /** Opens what the server sends; nothing may be written to it. */
  readonly stream: TLSSocket;
  #secret: Buffer;
  #key!: Buffer;
  #iv!: Buffer;
  #sequence = 0n;

  private constructor(socket: Socket, stream: TLSSocket, secret: Buffer) {
    this.socket = socket;
    this.stream = stream;
    this.#secret = secret;
    this.#useSecret();
  }

  static async connect(port: number, ca: string): Promise<Tls13Records> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await once(socket, 'connect');
    // Through a stream of JavaScript, so that the socket remains ours to write to.
    const pipe = new Duplex({
      read: () => socket.resume(),
      write: (chunk, _encoding, done) => void socket.write(chunk, () => done()),
      destroy: (error, done) => {
        socket.destroy();
        done(error);
      },
    });
    socket.on('data', (chunk) => pipe.push(chunk) || socket.pause());
    socket.on('close', () => pipe.push(null));
    socket.on('error', () => undefined);
    const stream = connectTls({
      socket: pipe,
      ca,
      ciphers: CIPHER,
      minVersion: 'TLSv1.3',
      checkServerIdentity: () => undefined,
    });
    stream.on('error', () => undefined);
    let secret: Buffer | undefined;
    stream.on('keylog', (line: Buffer) => {
      const [label, , value] = line.toString().trim().split(' ');
      if (label === 'CLIENT_TRAFFIC_SECRET_0') secret = Buffer.from(value!, 'hex');
    });
    await once(stream, 'secureConnect');
    return new Tls13Records(socket, stream, secret!);
  }

  /** One record. After a KeyUpdate the next is sealed with the new key. */
  seal(type: number, content: Uint8Array): Buffer {
    const header = Buffer.from([23, 3, 3, 0, 0]);
    header.writeUInt16BE(content.length + 1 + TAG, 3);
    const nonce = Buffer.from(this.#iv);
    nonce.writeBigUInt64BE(nonce.readBigUInt64BE(4) ^ this.#sequence++, 4);
    const cipher = createCipheriv('aes-128-gcm', this.#key, nonce).setAAD(header);
    const sealed = Buffer.concat([cipher.update(content), cipher.update(Buffer.of(type)), cipher.final()]);
    if (type === RecordType.handshake && content[0] === 24 && content.length === HEADER) {
      this.#secret = expand(this.#secret, 'traffic upd', 32);
      this.#useSecret();
    }
    return Buffer.concat([header, sealed, cipher.getAuthTag()]);
  }

  /** Records of `size` bytes of data each. */
  sealData(data: Uint8Array, size = 16_384): Buffer {
    const records: Buffer[] = [];
    for (let at = 0; at < data.length; at += size)
      records.push(this.seal(RecordType.data, data.subarray(at, at + size)));
    return Buffer.concat(records);
  }

  #useSecret(): void {
    this.#key = expand(this.#secret, 'key', 16);
    this.#iv = expand(this.#secret, 'iv', 12);
    this.#sequence = 0n;
  }
}

/** HKDF-Expand-Label with SHA-256 and an empty context, for up to one block. */
function expand(secret: Buffer, label: string, length: number): Buffer {
  const name = Buffer.from(`tls13 ${label}`);
  const info = Buffer.concat([Buffer.from([0, length, name.length]), name, Buffer.from([0, 1])]);
  return createHmac('sha256', secret).update(info).digest().subarray(0, length);
}
