/**
 * A DERP client with control over every byte, for tests of the relay. It knows the wire by itself, on purpose: a mistake in
 * `src/protocol` must not be able to hide here.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls, type ConnectionOptions as TlsOptions } from 'node:tls';
import sodium from 'sodium-native';
import { PrivateKey, type PublicKey } from '../../dist/protocol/key.js';

/** Frame types by their names on the wire. */
export const Frame = {
  serverKey: 0x01,
  clientInfo: 0x02,
  serverInfo: 0x03,
  sendPacket: 0x04,
  recvPacket: 0x05,
  keepAlive: 0x06,
  notePreferred: 0x07,
  peerGone: 0x08,
  peerPresent: 0x09,
  forwardPacket: 0x0a,
  watchConns: 0x10,
  closePeer: 0x11,
  ping: 0x12,
  pong: 0x13,
  health: 0x14,
} as const;

export const MAGIC = Buffer.from('DERP\u{1f511}');
export const KEY_LENGTH = 32;
export const NONCE_LENGTH = 24;

/** Milliseconds that any single wait may take before the test fails. */
export const PATIENCE = 20_000;

export interface RawFrame {
  type: number;
  body: Buffer;
}

export interface UpgradeOptions {
  fastStart?: boolean;
  /** Header lines instead of `Upgrade: DERP` and `Connection: Upgrade`. */
  lines?: string[];
  method?: string;
  path?: string;
  version?: string;
}

export interface DialOptions {
  port: number;
  /** Default: 127.0.0.1. */
  host?: string;
  /** Address to connect from. */
  localAddress?: string;
  key?: PrivateKey;
  /** Connects over TLS, whose handshake is done when the client is there. */
  tls?: TlsOptions;
}

export interface ClientInfoOptions {
  key?: PrivateKey;
  serverKey: Uint8Array;
  /** The JSON text to seal; default: what a client of version 2 writes, with `meshKey` when given. */
  json?: string | Uint8Array;
  meshKey?: string;
}

/** A whole frame. `length` overrides the length field, so that it can lie. */
export function frame(type: number, body: Uint8Array = Buffer.alloc(0), length = body.length): Buffer {
  const bytes = Buffer.allocUnsafe(5 + body.length);
  bytes.writeUInt8(type, 0);
  bytes.writeUInt32BE(length, 1);
  bytes.set(body, 5);
  return bytes;
}

export function sendPacketFrame(destination: PublicKey, packet: Uint8Array): Buffer {
  return frame(Frame.sendPacket, Buffer.concat([destination.bytes, packet]));
}

export function forwardPacketFrame(source: PublicKey, destination: PublicKey, packet: Uint8Array): Buffer {
  return frame(Frame.forwardPacket, Buffer.concat([source.bytes, destination.bytes, packet]));
}

/** The head of an upgrade request, with the empty line. */
export function upgradeHead(options: UpgradeOptions = {}): Buffer {
  const lines = options.lines ?? ['Upgrade: DERP', 'Connection: Upgrade'];
  const request = `${options.method ?? 'GET'} ${options.path ?? '/derp'} HTTP/${options.version ?? '1.1'}`;
  const fast = options.fastStart ? ['Derp-Fast-Start: 1'] : [];
  return Buffer.from([request, 'Host: relay.test', ...lines, ...fast, '', ''].join('\r\n'));
}

/** The body of a ClientInfo frame. */
export function clientInfoBody(key: PrivateKey, options: ClientInfoOptions): Buffer {
  const mesh = options.meshKey === undefined ? {} : { meshKey: options.meshKey };
  const json = options.json ?? JSON.stringify({ ...mesh, version: 2, CanAckPings: false });
  const message = Buffer.from(json as string);
  const nonce = Buffer.allocUnsafe(NONCE_LENGTH);
  sodium.randombytes_buf(nonce);
  const box = Buffer.allocUnsafe(message.length + sodium.crypto_box_MACBYTES);
  sodium.crypto_box_easy(box, message, nonce, Buffer.from(options.serverKey), secretOf(key));
  return Buffer.concat([key.publicKey.bytes, nonce, box]);
}

function secretOf(key: PrivateKey): Buffer {
  return Buffer.from(key.serialize().slice('privkey:'.length), 'hex');
}

/** A packet that looks like disco: magic, sender key and nonce, then `text`. */
export function discoPacket(text = ''): Buffer {
  return Buffer.concat([Buffer.from('TS\u{1f4ac}'), Buffer.alloc(KEY_LENGTH + NONCE_LENGTH), Buffer.from(text)]);
}

export class RawClient {
  readonly key: PrivateKey;
  /** What is written to and read from: over TLS, plaintext. */
  readonly stream: Duplex;
  readonly #transport: Duplex;
  /** The relay's key, once ServerKey was read. */
  serverKey: Buffer | undefined;
  #chunks: Buffer[] = [];
  #length = 0;
  #ended = false;
  #wake: (() => void) | undefined;
  #afterClientInfo: Buffer = Buffer.alloc(0);

  /** @param transport - what carries the stream, where that is something else */
  constructor(stream: Duplex, key: PrivateKey = PrivateKey.generate(), transport = stream) {
    this.stream = stream;
    this.#transport = transport;
    this.key = key;
    stream.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
      this.#wake?.();
    });
    const ended = () => {
      this.#ended = true;
      this.#wake?.();
    };
    stream.on('end', ended);
    stream.on('close', ended);
    // A reset is one of the ways in which a relay closes; expectClose() is where tests look at it.
    stream.on('error', ended);
  }

  /** A TCP connection on which nothing was sent yet. */
  static dial(port: number, key?: PrivateKey, host?: string): Promise<RawClient> {
    return RawClient.connect({ port, ...(key && { key }), ...(host && { host }) });
  }

  /** A connection on which no plaintext was sent yet. */
  static async connect({ key, tls, host = '127.0.0.1', ...where }: DialOptions): Promise<RawClient> {
    const socket = connect({ ...where, host, noDelay: true, allowHalfOpen: true });
    await once(socket, 'connect');
    if (tls === undefined) return new RawClient(socket, key);
    const stream = connectTls({ host, ...tls, socket });
    await once(stream, 'secureConnect');
    return new RawClient(stream, key, socket);
  }

  get publicKey(): PublicKey {
    return this.key.publicKey;
  }

  /** The TCP connection. */
  get socket(): Socket {
    return this.#transport as Socket;
  }

  /** Upgrade and handshake up to and including ServerInfo. */
  async open(options: UpgradeOptions & { meshKey?: string } = {}): Promise<this> {
    await this.write(upgradeHead(options));
    if (!options.fastStart) await this.readHead();
    return this.handshake(options);
  }

  /** The DERP handshake on a stream that is already upgraded. */
  async handshake(options: { meshKey?: string } = {}): Promise<this> {
    const serverKey = await this.readServerKey();
    const mesh = options.meshKey === undefined ? {} : { meshKey: options.meshKey };
    const info = frame(Frame.clientInfo, clientInfoBody(this.key, { serverKey, ...mesh }));
    await this.write(Buffer.concat([info, this.#afterClientInfo]));
    await this.readServerInfo();
    return this;
  }

  /** Makes the handshake send these bytes in the same write as ClientInfo. */
  pipelineAfterHandshake(bytes: Buffer): void {
    this.#afterClientInfo = bytes;
  }

  /** Writes bytes as they are; resolves when the kernel or the stream took them. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.stream.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Writes without waiting and without caring: for peers that the relay may close meanwhile. */
  push(bytes: Uint8Array): void {
    this.stream.write(bytes, () => undefined);
  }

  send(destination: PublicKey, packet: Uint8Array): Promise<void> {
    return this.write(sendPacketFrame(destination, packet));
  }

  /** Stops reading, so that the relay's output piles up in the kernel and then in the relay. */
  freeze(): void {
    this.stream.pause();
  }

  thaw(): void {
    this.stream.resume();
  }

  /** Closes with a reset. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  destroy(): void {
    this.stream.destroy();
  }

  /** The HTTP answer's head, without the empty line. */
  async readHead(): Promise<string> {
    const end = '\r\n\r\n';
    await this.#until('an HTTP head', () => this.#peek().includes(end));
    const length = this.#peek().indexOf(end);
    const head = this.#take(length).toString('latin1');
    this.#take(end.length);
    return head;
  }

  /** The next bytes, whatever they mean. */
  async nextBytes(count: number): Promise<Buffer> {
    await this.#until(`${count} bytes`, () => this.#length >= count);
    return this.#take(count);
  }

  /** Everything that comes until the relay closes. */
  async readToEnd(): Promise<Buffer> {
    await this.expectClose();
    return this.#take(this.#length);
  }

  /** The next frame, whatever it is. */
  async nextFrame(what = 'a frame', patience = PATIENCE): Promise<RawFrame> {
    await this.#until(what, () => this.#length >= 5, patience);
    const length = this.#peek().readUInt32BE(1);
    await this.#until(what, () => this.#length >= 5 + length, patience);
    const header = this.#take(5);
    return { type: header.readUInt8(0), body: this.#take(length) };
  }

  /** The next frame but KeepAlive; fails when its type is another one. */
  async expectFrame(type: number): Promise<Buffer> {
    const name = frameName(type);
    for (;;) {
      const next = await this.nextFrame(name);
      if (next.type === type) return next.body;
      if (next.type !== Frame.keepAlive) {
        throw new Error(`expected ${name}, got ${frameName(next.type)} ${next.body.subarray(0, 64).toString('hex')}`);
      }
    }
  }

  /** The next packet: its source as hexadecimal text and its bytes. */
  async expectPacket(): Promise<{ source: string; packet: Buffer }> {
    const body = await this.expectFrame(Frame.recvPacket);
    return { source: body.subarray(0, KEY_LENGTH).toString('hex'), packet: body.subarray(KEY_LENGTH) };
  }

  async expectPeerGone(): Promise<{ key: string; reason: number }> {
    const body = await this.expectFrame(Frame.peerGone);
    if (body.length !== KEY_LENGTH + 1) throw new Error(`PeerGone of ${body.length} bytes`);
    return { key: body.subarray(0, KEY_LENGTH).toString('hex'), reason: body.readUInt8(KEY_LENGTH) };
  }

  /** Sends a ping; what comes back next must be its pong. So the relay has read all that was sent before. */
  async settle(): Promise<void> {
    const ping = await this.#ping();
    const pong = await this.expectFrame(Frame.pong);
    if (!pong.equals(ping)) throw new Error(`pong ${pong.toString('hex')} for ping ${ping.toString('hex')}`);
  }

  /** The same, where frames of `type` may come before the pong: resolves with their number. */
  async settleCounting(type: number): Promise<number> {
    await this.#ping();
    for (let count = 0; ; count++) {
      const next = await this.nextFrame('Pong');
      if (next.type === Frame.pong) return count;
      if (next.type !== type) throw new Error(`expected ${frameName(type)} or pong, got ${frameName(next.type)}`);
    }
  }

  /** Bytes that came and were not read yet. */
  get unread(): number {
    return this.#length;
  }

  async readServerKey(): Promise<Buffer> {
    const body = await this.expectFrame(Frame.serverKey);
    if (!body.subarray(0, MAGIC.length).equals(MAGIC)) throw new Error(`ServerKey begins with ${body.toString('hex')}`);
    this.serverKey = body.subarray(MAGIC.length, MAGIC.length + KEY_LENGTH);
    return this.serverKey;
  }

  /** Reads and opens ServerInfo; resolves with its JSON. */
  async readServerInfo(): Promise<Record<string, unknown>> {
    const body = await this.expectFrame(Frame.serverInfo);
    const message = Buffer.allocUnsafe(body.length - NONCE_LENGTH - sodium.crypto_box_MACBYTES);
    const [nonce, box] = [body.subarray(0, NONCE_LENGTH), body.subarray(NONCE_LENGTH)];
    if (!sodium.crypto_box_open_easy(message, box, nonce, this.serverKey as Buffer, secretOf(this.key))) {
      throw new Error('the box of ServerInfo does not open');
    }
    return JSON.parse(message.toString());
  }

  /** Resolves when the relay has closed the connection, by end or reset; frames that came before stay readable. */
  async expectClose(): Promise<void> {
    await this.#until('the end of the connection', () => this.#ended);
  }

  get closed(): boolean {
    return this.#ended;
  }

  async #ping(): Promise<Buffer> {
    const ping = Buffer.allocUnsafe(8);
    sodium.randombytes_buf(ping);
    await this.write(frame(Frame.ping, ping));
    return ping;
  }

  async #until(what: string, ready: () => boolean, patience = PATIENCE): Promise<void> {
    const deadline = Date.now() + patience;
    while (!ready()) {
      if (this.#ended) throw new Error(`the connection ended while waiting for ${what}`);
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`no ${what} within ${patience} ms; ${this.#length} bytes unread`);
      await this.#event(left);
    }
  }

  /** Resolves when something came, the connection ended or time is up. */
  #event(timeout: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = timeout === Number.POSITIVE_INFINITY ? undefined : setTimeout(resolve, timeout);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }

  #peek(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] ?? Buffer.alloc(0);
  }

  #take(count: number): Buffer {
    const all = this.#peek();
    this.#chunks = count < all.length ? [all.subarray(count)] : [];
    this.#length -= count;
    return all.subarray(0, count);
  }
}

function frameName(type: number): string {
  const name = Object.entries(Frame).find(([, value]) => value === type)?.[0];
  return name ?? `frame 0x${type.toString(16)}`;
}
