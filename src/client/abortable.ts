/** Calls that a signal can end. */
import { type Checks, checkOptions, checkSignal } from '../checks.js';
import { DerpAbortError } from '../errors.js';

/** Options of calls that wait for something. */
export interface SignalOptions {
  /** Ends the call, which then throws an error with `name` `AbortError`, `code` `ABORT_ERR` and the signal's reason as `cause`. */
  signal?: AbortSignal;
}

const CHECKS: Checks<SignalOptions> = { signal: checkSignal };

/**
 * The signal of a call.
 * @throws DerpError `ERR_DERP_BAD_OPTION`; `ABORT_ERR` when the signal was aborted before
 */
export function signalOf(options: SignalOptions): AbortSignal | undefined {
  checkOptions<SignalOptions>(options, 'options', CHECKS);
  const { signal } = options;
  if (signal?.aborted) throw new DerpAbortError(signal);
  return signal;
}

/** Calls `abort` once when the signal is aborted; the result ends that, and must be called. */
export function onAbort(signal: AbortSignal | undefined, abort: (error: DerpAbortError) => void): () => void {
  if (signal === undefined) return () => {};
  const listener = () => abort(new DerpAbortError(signal));
  signal.addEventListener('abort', listener, { once: true });
  return () => signal.removeEventListener('abort', listener);
}

/** The promise, unless the signal is aborted first. What the promise stands for goes on. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  if (signal.aborted) return Promise.reject(new DerpAbortError(signal));
  return new Promise<T>((resolve, reject) => {
    const done = onAbort(signal, reject);
    promise.then(resolve, reject).finally(done);
  });
}
