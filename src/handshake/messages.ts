/** What the control plane and the handshake threads agree on. */
import type { MessagePort } from 'node:worker_threads';

/** Given to a thread as its task. */
export interface HandshakeTask {
  /** Who decides about clients; undefined: all are let in. */
  admission: MessagePort | undefined;
}

/** Given to each thread when it starts. */
export interface HandshakeThreadData {
  /** Number of the native relay. */
  relayId: number;
  /** How many threads there have been, to name them by; on shared memory. */
  started: Int32Array;
  /** The relay's private key, 32 bytes. */
  privateKey: Uint8Array;
  /** Whether DERP is served; if not, every request is for pages. */
  derp: boolean;
  /** Address ranges of proxies whose `X-Forwarded-For` counts. */
  proxies: readonly string[];
  /** Milliseconds for the request head. */
  requestTimeout: number;
  /** Milliseconds for ServerKey to be written and ClientInfo to be read, each. */
  clientInfoTimeout: number;
  /** Milliseconds for the decision whether the client may use the relay. */
  admissionTimeout: number;
}

/** What a thread sends to the control plane once it takes connections and has all the files that it needs. */
export const THREAD_READY = 'handshake thread ready';

/** How handshakes fail: names of counters, known to the native side by their index. */
export const HANDSHAKE_FAILURES = [
  'closed',
  'reset',
  'timeout',
  'budget',
  'evicted',
  'discarded',
  'bad_first_frame',
  'bad_client_info',
  'bad_box',
  'malformed_request',
  'internal',
  'tls',
  'refused',
  'proxy',
] as const;

export type HandshakeFailure = (typeof HANDSHAKE_FAILURES)[number];
