import type { Clock } from '../../dist/certificates/clock.js';

interface Timer {
  at: number;
  callback: () => void;
}

/** A clock that stands still unless told otherwise. */
export class TestClock implements Clock {
  /** Waits that were asked for, in order, in milliseconds. */
  readonly waits: number[] = [];
  #wall: number;
  #passed = 0;
  readonly #timers = new Set<Timer>();
  readonly #waiting = new Set<() => void>();

  constructor(start = Date.now()) {
    this.#wall = start;
  }

  now(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#passed;
  }

  after(milliseconds: number, callback: () => void): () => void {
    const timer = { at: this.#passed + milliseconds, callback };
    this.waits.push(milliseconds);
    this.#timers.add(timer);
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
    return () => this.#timers.delete(timer);
  }

  /** Resolves once a timer runs. */
  async sleeping(): Promise<void> {
    while (this.#timers.size === 0) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  /** Lets time pass; timers fire in their order, those that they start included. */
  pass(milliseconds: number): void {
    const end = this.#passed + milliseconds;
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      const until = due?.at ?? end;
      this.#wall += until - this.#passed;
      this.#passed = until;
      if (due === undefined) return;
      this.#timers.delete(due);
      due.callback();
    }
  }

  /** Sets the wall clock, as an operator or NTP does. */
  jump(milliseconds: number): void {
    this.#wall += milliseconds;
  }
}
