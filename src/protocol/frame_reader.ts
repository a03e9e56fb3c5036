import { DerpError } from '../errors.js';
import { FRAME_HEADER_LENGTH, type FrameTypeByte, readBodyLength } from './frame.js';

/** A whole frame. */
export interface Frame {
  readonly type: FrameTypeByte;
  /** What follows the header; aliases the pushed chunk when the frame lay in one. */
  readonly body: Buffer;
}

/**
 * Finds frames in a stream that arrives in pieces of any size. A frame within one chunk is not copied; of one that spans chunks each
 * byte is copied once. Memory: the chunks not yet consumed and one body of at most {@link FrameReader.maxFrameSize}.
 */
export class FrameReader {
  /** Largest body in bytes; checked as soon as a header is there. May change between frames. */
  maxFrameSize: number;

  /** Pushed and not yet consumed; the first one is consumed up to #offset. */
  readonly #chunks: Buffer[] = [];
  #offset = 0;
  /** A header that spans chunks, filled up to #headerFill. */
  readonly #header = Buffer.alloc(FRAME_HEADER_LENGTH);
  #headerFill = 0;
  /** A body that spans chunks, filled up to #bodyFill. */
  #body: Buffer | undefined;
  #bodyFill = 0;

  constructor(maxFrameSize: number) {
    this.maxFrameSize = maxFrameSize;
  }

  /** Appends bytes of the stream. They must not be changed until {@link next} has consumed them. */
  push(chunk: Buffer): void {
    if (chunk.length > 0) this.#chunks.push(chunk);
  }

  /** Whether bytes were pushed that {@link next} has not consumed yet; never so after it returned `undefined`. */
  get hasPending(): boolean {
    return this.#chunks.length > 0;
  }

  /**
   * The next whole frame, or `undefined` when more bytes are needed.
   * @throws DerpError `ERR_DERP_BAD_FRAME` for a body over the limit; the stream is of no use after that
   */
  next(): Frame | undefined {
    if (this.#body !== undefined) return this.#fillBody(this.#body);
    if (!this.#fillHeader()) return undefined;
    const length = readBodyLength(this.#header);
    if (length > this.maxFrameSize) {
      const type = `0x${this.#header[0]!.toString(16).padStart(2, '0')}`;
      throw new DerpError(
        'ERR_DERP_BAD_FRAME',
        `frame ${type} of ${length} bytes, at most ${this.maxFrameSize} are taken`,
      );
    }
    const chunk = this.#chunks[0];
    const end = this.#offset + length;
    if (length === 0 || (chunk !== undefined && end <= chunk.length)) {
      const body = chunk === undefined ? Buffer.alloc(0) : chunk.subarray(this.#offset, end);
      this.#consume(length);
      return this.#emit(body);
    }
    this.#bodyFill = 0;
    this.#body = Buffer.allocUnsafeSlow(length);
    return this.#fillBody(this.#body);
  }

  /** Everything that was pushed and not returned by {@link next}, as it came; the reader is empty afterwards. */
  takeUnread(): Buffer {
    const begun = this.#body === undefined ? [] : [this.#body.subarray(0, this.#bodyFill)];
    const [first, ...rest] = this.#chunks.splice(0);
    const chunks = first === undefined ? [] : [first.subarray(this.#offset), ...rest];
    const unread = Buffer.concat([this.#header.subarray(0, this.#headerFill), ...begun, ...chunks]);
    this.#offset = 0;
    this.#headerFill = 0;
    this.#body = undefined;
    return unread;
  }

  #fillHeader(): boolean {
    this.#headerFill += this.#take(this.#header, this.#headerFill);
    return this.#headerFill === FRAME_HEADER_LENGTH;
  }

  #fillBody(body: Buffer): Frame | undefined {
    this.#bodyFill += this.#take(body, this.#bodyFill);
    if (this.#bodyFill < body.length) return undefined;
    this.#body = undefined;
    return this.#emit(body);
  }

  #emit(body: Buffer): Frame {
    this.#headerFill = 0;
    return { type: this.#header[0]!, body };
  }

  /** Copies from the chunks into `target` from `from` on, as much as there is; returns the number of bytes. */
  #take(target: Buffer, from: number): number {
    let at = from;
    while (at < target.length) {
      const chunk = this.#chunks[0];
      if (chunk === undefined) break;
      const count = chunk.copy(target, at, this.#offset);
      at += count;
      this.#consume(count);
    }
    return at - from;
  }

  /** Drops bytes of the first chunk. */
  #consume(count: number): void {
    this.#offset += count;
    if (this.#chunks[0] !== undefined && this.#offset === this.#chunks[0].length) {
      this.#chunks.shift();
      this.#offset = 0;
    }
  }
}
