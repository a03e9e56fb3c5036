/** Options of admission. */
import { arrayOf, type Checks, checkBoolean, checkFunction, checkString } from '../checks.js';
import { numberOption } from '../server/option_ranges.js';
import type { AdmitHook } from './hook.js';

/**
 * Who may use the relay: every source that is given must admit a client. Mesh peers are not asked for. The first label and the lowest limit
 * of all sources count, in the order of these options. Default: anyone may.
 */
export interface ServerAdmissionOptions {
  /** Refuses clients that say that they are one of these programs; an empty name stands for clients that say nothing. Default: none. */
  disallowAppNames?: readonly string[];
  /** File of admitted keys, read again when it changes: lines `nodekey:HEX [label=NAME] [rate=BYTES/S]`. Keys that left are disconnected. */
  keyFile?: string;
  /** Path of a tailscaled's socket: the nodes that it knows are admitted. */
  tailscaledSocket?: string;
  /** An `http://` or `https://` URL that is asked by POST, as by derper's `-verify-client-url`. */
  url?: string;
  /** Whether clients are admitted while `url` is unreachable. Default: true. */
  urlFailOpen?: boolean;
  /** Milliseconds for which an answer of `url` that admits counts for its key and address; 0 = every connect asks. Default: 0. */
  urlCache?: number;
  /** The embedder's own decision. */
  admit?: AdmitHook;
  /** Milliseconds for one decision of `admit`; later ones refuse. Default: 5,000. */
  admitTimeout?: number;
}

/** With defaults filled in. */
export type ResolvedAdmission = ServerAdmissionOptions &
  Required<Pick<ServerAdmissionOptions, 'urlFailOpen' | 'urlCache' | 'admitTimeout'>>;

export const ADMISSION_CHECKS: Checks<ServerAdmissionOptions> = {
  disallowAppNames: arrayOf(checkString),
  keyFile: checkString,
  tailscaledSocket: checkString,
  url: checkString,
  urlFailOpen: checkBoolean,
  urlCache: numberOption('admission.urlCache'),
  admit: checkFunction,
  admitTimeout: numberOption('admission.admitTimeout'),
};
