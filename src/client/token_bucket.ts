/** The rate that a relay may ask its clients to keep; starts full. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #at: number;

  /**
   * @param perSecond - bytes per second
   * @param burst - bytes that may go at once; nothing larger ever passes
   * @param now - milliseconds of any clock that only rises
   */
  constructor(perSecond: number, burst: number, now: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
    this.#at = now;
  }

  /** Takes `bytes` if they are there; false = the caller must drop what it wanted to send. */
  take(bytes: number, now: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#at) / 1000) * this.#perSecond);
    this.#at = now;
    if (bytes > this.#tokens) return false;
    this.#tokens -= bytes;
    return true;
  }
}
