/** When a mesh link is dialled again. */
import { MESH_FIRST_RETRY, MESH_QUICK_RETRY, MESH_QUICK_TIME } from './defaults.js';

/** How much longer each wait is than the one before. */
const GROWTH = 1.5;
/** The least part of a wait that jitter leaves: relays that lost the same peer do not dial it in step. */
const LEAST_JITTER = 0.75;

/**
 * The waits between attempts. A relay that restarts is back within seconds, so the first minute's waits are short; after it they grow to
 * `longest`.
 */
export class Redial {
  readonly #longest: number;
  readonly #random: () => number;
  #wait = 0;
  /** When the first wait since the link was up began; undefined: the link is up, or was never tried. */
  #since: number | undefined;

  /**
   * @param longest - milliseconds; no wait is longer
   * @param random - from 0 to below 1, for tests
   */
  constructor(longest: number, random: () => number = Math.random) {
    this.#longest = longest;
    this.#random = random;
  }

  /** The link is up: its next end is the first trouble again. */
  recovered(): void {
    this.#since = undefined;
  }

  /**
   * @param now - milliseconds of a clock that only rises
   * @returns milliseconds to wait before the next attempt
   */
  next(now: number): number {
    if (this.#since === undefined) {
      this.#since = now;
      this.#wait = MESH_FIRST_RETRY;
    } else {
      const isQuick = now - this.#since < MESH_QUICK_TIME;
      this.#wait = Math.min(this.#wait * GROWTH, isQuick ? MESH_QUICK_RETRY : this.#longest);
    }
    this.#wait = Math.min(this.#wait, this.#longest);
    return this.#wait * (LEAST_JITTER + (1 - LEAST_JITTER) * this.#random());
  }
}
