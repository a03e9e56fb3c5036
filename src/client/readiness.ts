import type { DerpError } from '../errors.js';

/** Whether the relay let a client in; settled once. */
export class Readiness {
  readonly promise: Promise<void>;
  resolve: () => void = () => {};
  reject: (reason: DerpError) => void = () => {};

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Calling `ready` is optional; `recv` reports a failure otherwise.
    this.promise.catch(() => {});
  }
}
