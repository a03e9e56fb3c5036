/** Where the running relay's lines go. A sink that fails or stalls costs lines, never the relay. */
import { type NativeLineWriter, native } from '../native.js';

/** Bytes of lines that may wait for a slow reader; the longest bursts of the log are shorter. */
const MAX_WAITING = 1 << 20;

/** Milliseconds that the end of the program waits for what is still to be written. */
const EXIT_FLUSH = 500;

/** What the first line that gets through says about those that did not. */
export type LossNotice = (lost: number, error: string) => string;

export class LineSink {
  readonly #writer: NativeLineWriter;
  readonly #notice: LossNotice;

  /** @param fd - written to by blocking writes on a thread of its own */
  constructor(fd: number, notice: LossNotice) {
    this.#writer = new native.LineWriter(fd, MAX_WAITING);
    this.#notice = notice;
    process.on('exit', () => this.#writer.flush(EXIT_FLUSH));
  }

  /** Queues `text`, which ends in a newline, and returns at once. */
  write(text: string): void {
    const lost = this.#writer.unreported;
    this.#writer.write(text, lost === 0 ? '' : this.#notice(lost, this.#writer.lastError), lost);
  }

  /** Lines that could not be written, since start. */
  get lost(): number {
    return this.#writer.lost;
  }
}
