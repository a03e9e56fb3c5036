/** Asks all sources whether a client may use the relay: every one must admit. */
import {
  ADMISSION_SOURCES,
  type Admission,
  type AdmissionRequest,
  type AdmissionSource,
  type AdmissionSourceName,
  ALLOWED,
} from './decision.js';

export class AdmissionChain {
  readonly #sources: readonly AdmissionSource[];
  readonly #refused = new Map<AdmissionSourceName, number>(ADMISSION_SOURCES.map((name) => [name, 0]));

  /** @param sources - in the order in which they are asked */
  constructor(sources: readonly AdmissionSource[]) {
    this.#sources = sources;
  }

  /** Clients refused since start, by the source that refused them. */
  get refused(): Record<string, number> {
    return Object.fromEntries(this.#refused);
  }

  /**
   * The decision: of all sources the first label and the lowest rate. Never rejects.
   * @param signal - aborted when the client is gone; the decision is then discarded and not counted
   */
  async admit(request: AdmissionRequest, signal: AbortSignal): Promise<Admission> {
    let label: string | undefined;
    let receiveRate = Number.POSITIVE_INFINITY;
    const instant: AdmissionSource[] = [];
    let waited = false;
    for (const source of this.#sources) {
      const answer = ask(source, request, signal);
      if (answer instanceof Promise) waited = true;
      else instant.push(source);
      const decision = await answer;
      if (!decision.allow) return this.#refuse(source, decision, signal);
      label ??= decision.label;
      receiveRate = Math.min(receiveRate, decision.receiveRate ?? receiveRate);
    }
    if (waited) {
      for (const source of instant) {
        const decision = await ask(source, request, signal);
        if (!decision.allow) return this.#refuse(source, decision, signal);
      }
    }
    return {
      ...ALLOWED,
      ...(label !== undefined && { label }),
      ...(receiveRate !== Number.POSITIVE_INFINITY && { receiveRate }),
    };
  }

  #refuse({ name }: AdmissionSource, { text = 'not allowed' }: Admission, signal: AbortSignal): Admission {
    if (!signal.aborted) this.#refused.set(name, this.#refused.get(name)! + 1);
    return { allow: false, reason: name, text };
  }
}

/** A source's answer; a failure of it is a refusal. */
function ask(source: AdmissionSource, request: AdmissionRequest, signal: AbortSignal): Admission | Promise<Admission> {
  const failed = (error: unknown): Admission => ({ allow: false, text: textOf(error) });
  try {
    const answer = source.admit(request, signal);
    return answer instanceof Promise ? answer.catch(failed) : answer;
  } catch (error) {
    return failed(error);
  }
}

/** What an error says, whatever was thrown: a hook may throw what has no text. */
function textOf(error: unknown): string {
  try {
    return String((error as Error)?.message ?? error);
  } catch {
    return 'the decision failed with an error that has no text';
  }
}
