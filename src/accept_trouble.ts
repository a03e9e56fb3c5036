/** Tells when a listener stops and resumes accepting, in two lines however long it lasts. */
import type { Logger } from './log.js';

/** Milliseconds without trouble after which it counts as over: strangers may cause it and end it many times a second. */
const QUIET_TIME = 10_000;

/** What the system says when it cannot accept, in words. */
const REASONS = new Map([
  ['EMFILE', 'the process is out of file descriptors, raise its limit (LimitNOFILE)'],
  ['ENFILE', 'the machine is out of file descriptors'],
  ['ENOBUFS', 'the kernel is out of memory for sockets'],
  ['ENOMEM', 'the kernel is out of memory'],
]);

interface Episode {
  code: string;
  /** Milliseconds, of its first and of its latest failure. */
  since: number;
  last: number;
  failures: number;
}

export class AcceptTrouble {
  readonly #logger: Logger;
  readonly #listener: string;
  readonly #effect: string;
  readonly #quietTime: number;
  #episode: Episode | undefined;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param listener - its name in the log
   * @param effect - what becomes of connections meanwhile
   * @param quietTime - milliseconds; for tests
   */
  constructor(logger: Logger, listener: string, effect: string, quietTime = QUIET_TIME) {
    this.#logger = logger;
    this.#listener = listener;
    this.#effect = effect;
    this.#quietTime = quietTime;
  }

  /** Accepting failed once. */
  failed(code: string): void {
    const now = performance.now();
    if (this.#episode !== undefined) {
      this.#episode.last = now;
      this.#episode.failures++;
      return;
    }
    this.#episode = { code, since: now, last: now, failures: 1 };
    const reason = REASONS.get(code);
    const why = reason === undefined ? code : `${code}: ${reason}`;
    this.#logger.error({ code }, `derper: ${this.#listener}: ${why}; ${this.#effect}`);
    this.#timer = setInterval(() => this.#look(), this.#quietTime);
    this.#timer.unref();
  }

  /** The listener is closed: nothing more is logged. */
  close(): void {
    clearInterval(this.#timer);
    this.#episode = undefined;
  }

  #look(): void {
    const { code, since, last, failures } = this.#episode!;
    if (performance.now() - last < this.#quietTime) return;
    this.close();
    const seconds = Math.round((last - since) / 1000);
    const times = `${failures} ${failures === 1 ? 'failure' : 'failures'}`;
    this.#logger.info({ code }, `derper: ${this.#listener}: accepts again, after ${times} (${code}) over ${seconds} s`);
  }
}
