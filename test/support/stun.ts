/** STUN from a client's side. */

import { randomBytes } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';

const COOKIE = Buffer.from([0x21, 0x12, 0xa4, 0x42]);
const FINGERPRINT_XOR = 0x5354554e;
const CRC_TABLE = Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  return value >>> 0;
});

function crc32(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC_TABLE[(value ^ byte) & 0xff]! ^ (value >>> 8);
  return ~value >>> 0;
}

export function attribute(type: number, value: Uint8Array): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt16BE(type, 0);
  header.writeUInt16BE(value.length, 2);
  return Buffer.concat([header, value, Buffer.alloc(-value.length & 3)]);
}

export interface RequestWish {
  transaction?: Buffer;
  /** Default: Tailscale's, `tailnode`. */
  software?: string;
  /** In front of the software. */
  attributes?: Buffer;
  /** Added to the fingerprint. */
  fingerprintOffset?: number;
  /** Behind the fingerprint. */
  trailing?: Buffer;
}

/** A binding request; without wishes Tailscale's, 40 bytes. */
export function stunRequest(wish: RequestWish = {}): Buffer {
  const { transaction = randomBytes(12), software = 'tailnode', attributes = Buffer.alloc(0), trailing } = wish;
  const body = Buffer.concat([attributes, attribute(0x8022, Buffer.from(software))]);
  const header = Buffer.alloc(4);
  header.writeUInt16BE(1, 0);
  header.writeUInt16BE(body.length + 8, 2);
  const signed = Buffer.concat([header, COOKIE, transaction, body]);
  const fingerprint = Buffer.alloc(4);
  fingerprint.writeUInt32BE((((crc32(signed) ^ FINGERPRINT_XOR) >>> 0) + (wish.fingerprintOffset ?? 0)) >>> 0);
  return Buffer.concat([signed, attribute(0x8028, fingerprint), trailing ?? Buffer.alloc(0)]);
}

/** The address that an answer tells, as `ip:port`, an IPv6 address in full. */
export function toldAddress(answer: Buffer): string {
  const port = answer.readUInt16BE(26) ^ 0x2112;
  const bytes = answer.subarray(28).map((byte, i) => byte ^ answer[4 + i]!);
  if (answer[25] === 1) return `${bytes.join('.')}:${port}`;
  return `[${Buffer.from(bytes)
    .toString('hex')
    .replace(/(....)(?=.)/g, '$1:')}]:${port}`;
}

/** A UDP socket whose datagrams can be waited for. */
export class UdpClient {
  readonly #socket: Socket;
  readonly #received: Buffer[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (datagram) => void this.#received.push(datagram));
  }

  static async bind(address = '127.0.0.1'): Promise<UdpClient> {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    socket.bind(0, address);
    await once(socket, 'listening');
    return new UdpClient(socket);
  }

  get port(): number {
    return this.#socket.address().port;
  }

  send(datagram: Uint8Array, port: number, address = '127.0.0.1'): Promise<void> {
    return new Promise((resolve, reject) =>
      this.#socket.send(datagram, port, address, (error) => (error ? reject(error) : resolve())),
    );
  }

  /** The next datagram. */
  async receive(): Promise<Buffer> {
    while (this.#received.length === 0) await once(this.#socket, 'message');
    return this.#received.shift()!;
  }

  /** Datagrams that arrived and were not taken. */
  get waiting(): number {
    return this.#received.length;
  }

  close(): void {
    this.#socket.close();
  }
}
