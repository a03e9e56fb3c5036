/** The two clocks of the machine, and timers: renewals go by the calendar, retries by time that passed. */
export interface Clock {
  /** Milliseconds since 1970; may jump. */
  now(): number;
  /** Milliseconds that passed since some moment; never jumps. */
  monotonic(): number;
  /** Calls `callback` once after `milliseconds`; what it returns takes that back. */
  after(milliseconds: number, callback: () => void): () => void;
}

/** The machine's own. Its timers keep no process alive. */
export const systemClock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  after: (milliseconds, callback) => {
    const timer = setTimeout(callback, milliseconds).unref();
    return () => clearTimeout(timer);
  },
};
