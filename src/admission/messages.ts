/** What handshake threads and the main thread tell each other about admission, over one message port a thread. */
import type { Admission } from './decision.js';

/** What a handshake thread knows of a client. */
export interface Question {
  /** 32 bytes. */
  readonly key: Uint8Array;
  readonly address: string;
  readonly appName: string;
  readonly version: number;
  readonly isProber: boolean;
}

/** From a handshake thread. */
export type ToDesk =
  | { readonly type: 'ask'; readonly ticket: number; readonly question: Question }
  /** The client of a question is gone. */
  | { readonly type: 'gone'; readonly ticket: number }
  /** All that was answered before this `flush` has been carried out. */
  | { readonly type: 'flushed'; readonly flush: number };

/** From the main thread. */
export type FromDesk =
  | { readonly type: 'answer'; readonly ticket: number; readonly admission: Admission }
  | { readonly type: 'flush'; readonly flush: number };
