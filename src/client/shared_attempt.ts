import { abortable } from './abortable.js';

/** One attempt that several callers wait for. It ends when the last of them has given up. */
export class SharedAttempt<T> {
  readonly #ending = new AbortController();
  readonly #result: Promise<T>;
  #waiting = 0;

  /** @param attempt - makes the attempt; a signal ends it, whose reason it then throws */
  constructor(attempt: (signal: AbortSignal) => Promise<T>) {
    this.#result = attempt(this.#ending.signal);
    // Those who wait hear of a failure; all may have given up.
    this.#result.catch(() => {});
  }

  /** Whether it was ended: who comes now needs a new one. */
  get isEnded(): boolean {
    return this.#ending.signal.aborted;
  }

  /** The result of the attempt; gives up when the signal is aborted. */
  async wait(signal: AbortSignal | undefined): Promise<T> {
    this.#waiting++;
    try {
      return await abortable(this.#result, signal);
    } catch (error) {
      if (signal?.aborted && this.#waiting === 1) this.end(error);
      throw error;
    } finally {
      this.#waiting--;
    }
  }

  /** Ends the attempt; those who wait get `reason`. */
  end(reason: unknown): void {
    this.#ending.abort(reason);
  }
}
