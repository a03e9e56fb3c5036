import { DerpError } from '../errors.js';
import { type Frame, FrameReader } from '../protocol/frame_reader.js';
import type { Conn } from './conn.js';
import { RECEIVE_TIMEOUT } from './defaults.js';

/**
 * Frames over a connection. The connection is read only as fast as {@link FrameStream.next} is called: it is paused while bytes wait.
 * Once it failed, frames that arrived before can still be read, unless it was {@link FrameStream.abort}ed.
 */
export class FrameStream {
  /** Called when `next` may have something new, and when the stream failed. */
  onActivity: () => void = () => {};

  readonly #conn: Conn;
  readonly #reader: FrameReader;
  #failure: DerpError | undefined;
  #aborted = false;
  #released = false;
  #paused = false;
  #receiveTimer: NodeJS.Timeout | undefined;

  /**
   * @param head - bytes of the stream that were read from `conn` before
   * @param maxFrameSize - largest body in bytes; may be changed between frames
   */
  constructor(conn: Conn, head: Buffer, maxFrameSize: number) {
    this.#conn = conn;
    this.#reader = new FrameReader(maxFrameSize);
    this.#reader.push(head);
    conn.setNoDelay?.(true);
    conn.on('error', (cause) => {
      if (this.#released) return;
      const why =
        cause instanceof DerpError ? cause : connectionLost(`connection to the relay failed: ${cause.message}`, cause);
      this.#fail(why);
    });
    conn.on('end', () => this.#fail(connectionLost('the relay closed the connection')));
    conn.on('close', () => this.#fail(connectionLost('the connection to the relay was closed')));
    conn.on('data', (chunk) => this.#received(chunk));
    conn.resume();
    this.#watchSilence();
  }

  /** Why the stream ended, once it has. */
  get failure(): DerpError | undefined {
    return this.#failure;
  }

  set maxFrameSize(bytes: number) {
    this.#reader.maxFrameSize = bytes;
  }

  /** The next whole frame that has arrived, if any. A frame over the limit ends the stream. */
  next(): Frame | undefined {
    if (this.#aborted || this.#released) return undefined;
    let frame: Frame | undefined;
    try {
      frame = this.#reader.next();
    } catch (error) {
      this.abort(error as DerpError);
      return undefined;
    }
    if (frame !== undefined) this.#receiveTimer?.refresh();
    if (this.#paused && !this.#reader.hasPending) this.#resume();
    return frame;
  }

  /** Resolves when the connection took the frame, rejects with {@link failure} when it never will. */
  write(frame: Buffer): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#conn.write(frame, (error) => {
        if (!error) return resolve();
        this.#fail(connectionLost(`writing to the relay failed: ${error.message}`, error));
        reject(this.#failure);
      });
    });
  }

  /** Ends the stream and drops what arrived. The first reason stays. */
  abort(reason: DerpError): void {
    this.#aborted = true;
    this.#fail(reason);
  }

  /**
   * Gives the connection back, paused, and stops looking at it: frames may no longer be read or written here.
   * @returns the bytes that arrived and were not returned by {@link next}; they come before whatever the connection still holds
   */
  release(): Buffer {
    this.#released = true;
    clearTimeout(this.#receiveTimer);
    this.#conn.pause();
    return this.#reader.takeUnread();
  }

  #received(chunk: Buffer): void {
    if (this.#released) return;
    this.#reader.push(chunk);
    this.onActivity();
    if (this.#reader.hasPending && this.#failure === undefined) this.#pause();
  }

  #pause(): void {
    this.#paused = true;
    this.#conn.pause();
    clearTimeout(this.#receiveTimer);
  }

  #resume(): void {
    this.#paused = false;
    if (this.#failure !== undefined) return;
    this.#conn.resume();
    this.#watchSilence();
  }

  /** Silence counts only while the connection is read. */
  #watchSilence(): void {
    clearTimeout(this.#receiveTimer);
    const seconds = RECEIVE_TIMEOUT / 1000;
    this.#receiveTimer = setTimeout(() => {
      this.abort(new DerpError('ERR_DERP_TIMEOUT', `no frame from the relay for ${seconds} s`));
    }, RECEIVE_TIMEOUT).unref();
  }

  #fail(reason: DerpError): void {
    if (this.#failure !== undefined || this.#released) return;
    this.#failure = reason;
    clearTimeout(this.#receiveTimer);
    this.#conn.destroy();
    this.onActivity();
  }
}

function connectionLost(message: string, cause?: Error): DerpError {
  return new DerpError('ERR_DERP_CLOSED', message, cause === undefined ? {} : { cause });
}
