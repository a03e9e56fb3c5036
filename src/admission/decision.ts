/** What admission is asked, and what it answers. */
import type { PublicKey } from '../protocol/key.js';

/** The sources of decisions that can refuse a client, in the order in which they are asked: labels of the counters. */
export const ADMISSION_SOURCES = ['app_name', 'key_file', 'tailscaled', 'url', 'hook'] as const;

export type AdmissionSourceName = (typeof ADMISSION_SOURCES)[number];

/** A decision about one client. */
export interface Admission {
  readonly allow: boolean;
  /** Name under which the client's traffic is counted. */
  readonly label?: string;
  /** Bytes per second that the client may send. */
  readonly receiveRate?: number;
  /** Which source refused. */
  readonly reason?: AdmissionSourceName;
  /** Why, in words; it follows `client nodekey:... rejected: ` in the log. */
  readonly text?: string;
}

/** A client that asks to be let in. It has proved that it owns `key`; the rest is what it says about itself. */
export interface AdmissionRequest {
  readonly key: PublicKey;
  /** `ip:port`, IPv6 in brackets; empty when it is unknown. */
  readonly address: string;
  /** At most 32 printable ASCII characters. */
  readonly appName: string;
  /** Protocol version. */
  readonly version: number;
  readonly isProber: boolean;
}

/** One source of decisions. A source that throws refuses. */
export interface AdmissionSource {
  readonly name: AdmissionSourceName;
  /**
   * Decides at once, or later. Sources that decide at once are asked again after those that took time, so that they refuse what is out of
   * date by then.
   * @param signal - aborted when the client is gone
   */
  admit(request: AdmissionRequest, signal: AbortSignal): Admission | Promise<Admission>;
}

/** Lets a client in with nothing besides. */
export const ALLOWED: Admission = { allow: true };

/** Longest label, in characters. */
export const MAX_LABEL = 64;

/** Whether a label can be a metric's: printable ASCII without spaces, quotes and backslashes. */
export function isLabel(text: string): boolean {
  return text.length <= MAX_LABEL && /^[!#-[\]-~]+$/.test(text);
}
