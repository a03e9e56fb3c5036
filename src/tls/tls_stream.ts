/** A TLS connection for JavaScript, sealed and opened by the addon: it may go to a shard at any moment, which Node's own `TLSSocket` cannot. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { DerpError } from '../errors.js';
import type { NativeTlsSession } from '../native.js';

/** A connection whose reading has stopped: what native code takes over. */
export interface ReleasedTls {
  session: NativeTlsSession;
  /** Plaintext that was received and not read. */
  unread: Buffer;
}

/** Everything that a paused stream holds. */
export function readAll(stream: Duplex): Buffer {
  const chunks: Uint8Array[] = [];
  for (let chunk = stream.read() as Buffer | null; chunk !== null; chunk = stream.read()) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/**
 * A stream of plaintext over a TCP socket. `secure` is emitted when the handshake is done; nothing should be written before.
 * Errors of TLS are a DerpError `ERR_DERP_TLS`, or `ERR_DERP_CERTIFICATE` when the other side's was not trusted; those of the socket are
 * passed on.
 */
export class TlsStream extends Duplex {
  /** As on Node's `TLSSocket`. */
  readonly encrypted = true;
  readonly #socket: Socket;
  readonly #session: NativeTlsSession;
  #secure: boolean;
  #released = false;

  /** @param socket - only this stream reads and writes it from now on */
  constructor(socket: Socket, session: NativeTlsSession) {
    super({ emitClose: true });
    this.#socket = socket;
    this.#session = session;
    this.#secure = session.established;
    socket
      .on('data', this.#receive)
      .on('end', () => this.push(null))
      .on('error', (error) => this.destroy(error))
      .on('close', () => this.#closed())
      .on('timeout', () => this.emit('timeout'));
    this.#flush();
  }

  /** Begins a handshake in the client's role. */
  start(): void {
    try {
      this.#session.handshake();
    } catch (error) {
      this.#fail(tlsError(error as Error));
      return;
    }
    this.#flush();
  }

  get socket(): Socket {
    return this.#socket;
  }

  /** `1.2` or `1.3`, once agreed on. */
  get version(): string {
    return this.#session.version;
  }

  /** DER of what the other side presented, the leaf first. */
  peerCertificates(): Uint8Array[] {
    return this.#session.peerCertificates();
  }

  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  get remotePort(): number | undefined {
    return this.#socket.remotePort;
  }

  get localAddress(): string | undefined {
    return this.#socket.localAddress;
  }

  get localPort(): number | undefined {
    return this.#socket.localPort;
  }

  setTimeout(milliseconds: number, callback?: () => void): this {
    this.#socket.setTimeout(milliseconds);
    if (callback !== undefined) this.once('timeout', callback);
    return this;
  }

  setNoDelay(noDelay?: boolean): this {
    this.#socket.setNoDelay(noDelay);
    return this;
  }

  setKeepAlive(enable?: boolean, initialDelay?: number): this {
    this.#socket.setKeepAlive(enable, initialDelay);
    return this;
  }

  ref(): this {
    this.#socket.ref();
    return this;
  }

  unref(): this {
    this.#socket.unref();
    return this;
  }

  /** As of `net.Socket`, which Node's HTTP server and others take this for: ends, and destroys when all is written. */
  destroySoon(): void {
    if (this.writableFinished) {
      this.destroy();
      return;
    }
    this.once('finish', () => this.destroy());
    this.end();
  }

  /**
   * Ends reading and gives the connection up, the socket's descriptor being the caller's to take in the same tick.
   * @throws DerpError `ERR_DERP_TLS` when what the socket still held does not open
   */
  release(): ReleasedTls {
    this.#released = true;
    // read() also emits 'data': nothing may be opened twice.
    this.#socket.off('data', this.#receive);
    const sealed = readAll(this.#socket);
    const unread: Uint8Array[] = [readAll(this)];
    if (sealed.length > 0) unread.push(this.#open(sealed));
    return { session: this.#session, unread: Buffer.concat(unread) };
  }

  override _read(): void {
    if (!this.#released) this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    try {
      this.#session.send(chunk);
    } catch (error) {
      done(tlsError(error as Error));
      return;
    }
    this.#socket.write(this.#session.takeOutput(), done);
  }

  /** What was written while the socket was busy goes out together, in records as long as they may be. */
  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'buffer' as BufferEncoding, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    if (!this.#socket.writable) {
      done();
      return;
    }
    this.#session.shutdown();
    this.#socket.end(this.#session.takeOutput(), () => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  /** What was received may still wait for its reader: the stream then ends behind it, as a socket does. */
  #closed(): void {
    if (!this.#secure || this.#released || this.readableLength === 0) {
      this.destroy();
    } else {
      this.push(null);
      this.end();
    }
  }

  readonly #receive = (chunk: Buffer): void => {
    let plaintext: Uint8Array;
    try {
      plaintext = this.#open(chunk);
    } catch (error) {
      this.#fail(error as Error);
      return;
    }
    this.#flush();
    if (!this.#secure && this.#session.established) {
      this.#secure = true;
      this.emit('secure');
    }
    if (this.destroyed) return;
    if (plaintext.length > 0 && !this.push(plaintext)) this.#socket.pause();
    if (this.#session.ended && !this.readableEnded) this.push(null);
  };

  #open(sealed: Uint8Array): Uint8Array {
    try {
      return this.#session.receive(sealed);
    } catch (error) {
      throw tlsError(error as Error);
    }
  }

  #fail(error: Error): void {
    this.#flush(); // the alert
    this.destroy(error);
  }

  /** What the session itself has to say: its part of the handshake, answers to KeyUpdate, alerts. */
  #flush(): void {
    const output = this.#session.takeOutput();
    if (output.length > 0 && this.#socket.writable) this.#socket.write(output);
  }
}

function tlsError(cause: Error): DerpError {
  if (cause instanceof DerpError) return cause;
  const code = cause.message.startsWith('certificate: ') ? 'ERR_DERP_CERTIFICATE' : 'ERR_DERP_TLS';
  return new DerpError(code, `TLS: ${cause.message}`, { cause });
}
