/** A TCP connection under a test's TLS client, whose bytes the test may cut, hold back, add to and leave unfinished. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';

/** Milliseconds between two pieces: time for the other side to read the first. Whatever it does meanwhile, it must do right. */
const PAUSE = 1;

export class CutSocket extends Duplex {
  readonly socket: Socket;
  /** Bytes of the next piece of those that wait; default: all. */
  pieceSize: (waiting: number) => number = (waiting) => waiting;
  /** Everything written so far. */
  readonly written: Buffer[] = [];
  /** Whether the end of the stream ends the TCP connection too. */
  endsTransport = true;
  #held: Buffer[] | undefined;

  private constructor(socket: Socket) {
    super({ allowHalfOpen: true });
    this.socket = socket;
    socket
      .on('data', (chunk) => this.push(chunk) || socket.pause())
      .on('end', () => this.push(null))
      .on('error', (error) => this.destroy(error))
      .on('close', () => this.destroy());
  }

  static async connect(port: number): Promise<CutSocket> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    await once(socket, 'connect');
    return new CutSocket(socket);
  }

  /** Cuts what is written at an offset of the whole stream. */
  cutAt(offset: number): void {
    let sent = 0;
    this.pieceSize = (waiting) => {
      const size = sent < offset ? Math.min(waiting, offset - sent) : waiting;
      sent += size;
      return size;
    };
  }

  /** Keeps what is written from now on. */
  hold(): void {
    this.#held = [];
  }

  /** Sends in one write what was kept, and bytes of the test's own behind. */
  release(...more: Uint8Array[]): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    this.socket.write(Buffer.concat([...held, ...more]));
  }

  override _read(): void {
    this.socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.written.push(chunk);
    if (this.#held !== undefined) {
      this.#held.push(chunk);
      done();
      return;
    }
    this.#send(chunk, done);
  }

  override _final(done: () => void): void {
    if (this.endsTransport) this.socket.end(done);
    else done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.socket.destroy();
    done(error);
  }

  #send(bytes: Buffer, done: (error?: Error | null) => void): void {
    const size = this.pieceSize(bytes.length);
    this.socket.write(bytes.subarray(0, size), (error) => {
      if (error || size === bytes.length) done(error);
      else setTimeout(() => this.#send(bytes.subarray(size), done), PAUSE);
    });
  }
}
