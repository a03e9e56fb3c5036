/** Refuses clients by the name of their program. Anyone can give any name: this keeps out programs, not people. */
import { type Admission, type AdmissionRequest, type AdmissionSource, ALLOWED } from './decision.js';

export class DisallowedAppNames implements AdmissionSource {
  readonly name = 'app_name';
  readonly #names: ReadonlySet<string>;

  /** @param names - exact; an empty one stands for clients that give no name */
  constructor(names: readonly string[]) {
    this.#names = new Set(names);
  }

  admit({ appName }: AdmissionRequest): Admission {
    if (!this.#names.has(appName)) return ALLOWED;
    return { allow: false, text: `disallowed app name ${JSON.stringify(appName)}` };
  }
}
