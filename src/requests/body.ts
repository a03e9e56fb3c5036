/** Bodies of requests. No page reads them: they are skipped up to the next request. */
import type { Framing } from './head.js';

/** Bytes of a body that are passed over; a longer one ends its connection instead. derper's bound. */
export const MAX_SKIPPED_BODY = 256 << 10;
/** Bytes of a line between chunks: a size with its extensions, or a trailer. */
const MAX_LINE = 4096;
/** Bytes of all that is not data in a chunked body. */
const MAX_OVERHEAD = 16 << 10;

const CRLF = '\r\n';

/** `done`: the next request begins behind what was consumed. `bad`: its beginning is unknown, so the connection must end. */
export type SkipState = 'more' | 'done' | 'bad';

/** Finds the end of one body in pieces. */
export class BodySkipper {
  #state: SkipState;
  readonly #chunked: boolean;
  /** Bytes of data to come before something else does. */
  #left: number;
  #data: number;
  #overhead = 0;
  /** What comes next between chunks. */
  #next: 'size' | 'end of chunk' | 'trailer' = 'size';

  constructor({ chunked, length }: Framing) {
    this.#chunked = chunked;
    this.#left = length;
    this.#data = length;
    this.#state = length >= MAX_SKIPPED_BODY ? 'bad' : chunked || length > 0 ? 'more' : 'done';
  }

  get state(): SkipState {
    return this.#state;
  }

  /**
   * Goes on.
   * @returns how many bytes belong to the body; those behind them must come again with more, or belong to the next request
   */
  feed(bytes: Buffer): number {
    let at = 0;
    while (this.#state === 'more') {
      if (this.#left > 0) {
        const count = Math.min(this.#left, bytes.length - at);
        this.#left -= count;
        at += count;
        if (this.#left > 0) break;
        if (!this.#chunked) this.#state = 'done';
        continue;
      }
      const end = this.#lineEnd(bytes, at);
      if (end === -1) break;
      this.#takeLine(bytes.toString('latin1', at, end));
      this.#overhead += end + CRLF.length - at;
      if (this.#overhead > MAX_OVERHEAD) this.#state = 'bad';
      at = end + CRLF.length;
    }
    return at;
  }

  /** Offset of the line's CRLF, or -1. */
  #lineEnd(bytes: Buffer, from: number): number {
    const lf = bytes.indexOf(10, from);
    if (lf === -1) {
      if (bytes.length - from > MAX_LINE) this.#state = 'bad';
      return -1;
    }
    // A bare LF ends no line here: other programs disagree on it.
    if (lf - from <= MAX_LINE && lf > from && bytes[lf - 1] === 13) return lf - 1;
    this.#state = 'bad';
    return -1;
  }

  #takeLine(line: string): void {
    if (line.includes('\r')) this.#state = 'bad';
    else if (this.#next === 'end of chunk') this.#endChunk(line);
    else if (this.#next === 'size') this.#beginChunk(line);
    else if (line === '') this.#state = 'done';
    else if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*$/.test(line)) this.#state = 'bad';
  }

  #beginChunk(line: string): void {
    const digits = /^([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?$/.exec(line)?.[1];
    const size = digits === undefined ? Number.NaN : Number.parseInt(digits, 16);
    this.#data += size;
    if (!(this.#data < MAX_SKIPPED_BODY)) this.#state = 'bad';
    this.#left = size;
    this.#next = size === 0 ? 'trailer' : 'end of chunk';
  }

  #endChunk(line: string): void {
    if (line !== '') this.#state = 'bad';
    this.#next = 'size';
  }
}
