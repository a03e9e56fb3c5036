/** The output of the running relay's log lines. A sink that fails or stalls loses lines, but never delays the relay. */
import { type NativeLineWriter, native } from '../native.js';

/** Bytes of lines that may wait for a slow reader; longer than the longest bursts of the log. */
const MAX_WAITING = 1 << 20;

/** Milliseconds that the program waits at its end for lines still to be written. */
const EXIT_FLUSH = 500;

/** Makes the first line after a loss: it says how many lines were lost, and why. */
export type LossNotice = (lost: number, error: string) => string;

export class LineSink {
  readonly #writer: NativeLineWriter;
  readonly #notice: LossNotice;

  /** @param fd - written with blocking writes on a separate thread */
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
