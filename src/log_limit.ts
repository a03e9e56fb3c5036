/** Limits for log lines that strangers can cause by connecting, requesting pages, or being dialled. */
import type { Logger } from './log.js';

/** How many lines of one kind may come. */
export interface LineRate {
  /** Lines at once. */
  burst: number;
  /** Milliseconds after which one more may come. */
  interval: number;
}

/** Lines for operators: enough to see what goes on, and too few to fill a disk. */
export const OPERATOR_RATE: LineRate = { burst: 10, interval: 10_000 };

/** Lines at debug level: one per connection is wanted, on a relay that is not flooded. */
export const DEBUG_RATE: LineRate = { burst: 1_000, interval: 10 };

/** A token bucket for lines of one kind. */
export class LineBudget {
  readonly #rate: LineRate;
  #tokens: number;
  #refilledAt = 0;
  #suppressed = 0;

  constructor(rate: LineRate) {
    this.#rate = rate;
    this.#tokens = rate.burst;
  }

  /**
   * Asks for one line.
   *
   * @param now - milliseconds of a clock that only rises
   * @returns the lines refused since the last one that was not; undefined: this one is refused
   */
  take(now: number): number | undefined {
    const { burst, interval } = this.#rate;
    this.#tokens = Math.min(burst, this.#tokens + (now - this.#refilledAt) / interval);
    this.#refilledAt = now;
    if (this.#tokens < 1) {
      this.#suppressed++;
      return undefined;
    }
    this.#tokens--;
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    return suppressed;
  }
}

/** `message`, with what was suppressed before it. */
export function withSuppressed(message: string, suppressed: number): string {
  if (suppressed === 0) return message;
  return `${message} (${suppressed} similar ${suppressed === 1 ? 'line' : 'lines'} suppressed)`;
}

/** A logger whose lines are bounded by kind. */
export class LimitedLog {
  readonly #logger: Logger;
  readonly #operatorRate: LineRate;
  readonly #budgets = new Map<string, LineBudget>();
  readonly #now: () => number;

  /**
   * @param verbose - lines for operators may come as often as those at debug level
   * @param now - for tests
   */
  constructor(logger: Logger, verbose = false, now = () => performance.now()) {
    this.#logger = logger;
    this.#operatorRate = verbose ? DEBUG_RATE : OPERATOR_RATE;
    this.#now = now;
  }

  /** @param kind - what is bounded together; strangers must not choose it */
  log(level: keyof Logger, kind: string, fields: object, message: string): void {
    const suppressed = this.#budget(level, kind).take(this.#now());
    if (suppressed !== undefined) this.#logger[level](fields, withSuppressed(message, suppressed));
  }

  #budget(level: keyof Logger, kind: string): LineBudget {
    const name = `${level} ${kind}`;
    let budget = this.#budgets.get(name);
    if (budget === undefined) {
      budget = new LineBudget(level === 'debug' ? DEBUG_RATE : this.#operatorRate);
      this.#budgets.set(name, budget);
    }
    return budget;
  }
}
