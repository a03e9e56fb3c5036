/** An embedder's own decision. */
import { badOption } from '../checks.js';
import { type Admission, type AdmissionRequest, type AdmissionSource, ALLOWED, isLabel } from './decision.js';

/** What a hook answers: whether the client may use the relay, alone or with a label and a limit. */
export type AdmitDecision = boolean | AdmitDetail;

export interface AdmitDetail {
  readonly allow: boolean;
  /** Name under which the client's traffic is counted: 1 to 64 printable ASCII characters without spaces, quotes and backslashes. */
  readonly label?: string | undefined;
  /** Bytes per second that the client may send, an integer from 1 on. */
  readonly receiveRate?: number | undefined;
}

/**
 * Decides about a client. A hook that throws, rejects, answers something else or takes longer than its deadline refuses.
 * @param signal - aborted when the client is gone or the deadline is over
 */
export type AdmitHook = (request: AdmissionRequest, signal: AbortSignal) => AdmitDecision | Promise<AdmitDecision>;

export class HookAdmission implements AdmissionSource {
  readonly name = 'hook';
  readonly #hook: AdmitHook;
  readonly #timeout: number;

  /** @param timeout - milliseconds for one decision */
  constructor(hook: AdmitHook, timeout: number) {
    this.#hook = hook;
    this.#timeout = timeout;
  }

  async admit(request: AdmissionRequest, signal: AbortSignal): Promise<Admission> {
    const over = new AbortController();
    const deadline = setTimeout(
      () => over.abort(new Error(`the hook took over ${this.#timeout} ms`)),
      this.#timeout,
    ).unref();
    const gone = () => over.abort(new Error('the client is gone'));
    signal.addEventListener('abort', gone, { once: true });
    const aborted = new Promise<never>((_, reject) => {
      over.signal.addEventListener('abort', () => reject(over.signal.reason), { once: true });
    });
    // The hook may throw before anyone waits for this.
    aborted.catch(() => undefined);
    try {
      if (signal.aborted) gone();
      return readDecision(await Promise.race([this.#hook(request, over.signal), aborted]));
    } finally {
      // A deadline may be hours away, and there may be thousands of decisions a second.
      clearTimeout(deadline);
      signal.removeEventListener('abort', gone);
    }
  }
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` for anything but a decision */
function readDecision(answer: AdmitDecision): Admission {
  if (answer === true) return ALLOWED;
  if (answer === false) return { allow: false, text: 'refused by the hook' };
  if (typeof answer !== 'object' || answer === null || typeof answer.allow !== 'boolean') {
    throw badOption('the hook must answer true, false or a decision with the member allow');
  }
  const { allow, label, receiveRate } = answer;
  if (!allow) return { allow, text: 'refused by the hook' };
  if (label !== undefined && (typeof label !== 'string' || !isLabel(label))) {
    throw badOption('label: must be 1 to 64 printable ASCII characters without spaces, quotes and backslashes');
  }
  if (receiveRate !== undefined && !(Number.isSafeInteger(receiveRate) && receiveRate > 0)) {
    throw badOption('receiveRate: must be an integer from 1 on');
  }
  return { allow, ...(label !== undefined && { label }), ...(receiveRate !== undefined && { receiveRate }) };
}
