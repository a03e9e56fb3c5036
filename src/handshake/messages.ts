/** What crosses between the control plane and a handshake thread. */
import type { ConnectionId } from '../native.js';

/** Given once to each thread. */
export interface HandshakeThreadData {
  /** The relay's private key, 32 bytes. */
  privateKey: Uint8Array;
  /** Milliseconds for the request head. */
  requestTimeout: number;
  /** Milliseconds for ServerKey to be written and ClientInfo to be read, each. */
  clientInfoTimeout: number;
}

export interface HandshakeTask {
  id: ConnectionId;
  /** `request`: the HTTP request comes first; `answer`: send 101, then as `derp`; `derp`: begin with ServerKey. */
  start: 'request' | 'answer' | 'derp';
}

/** How a handshake failed; counted under these names. */
export type HandshakeFailure =
  | 'closed'
  | 'reset'
  | 'timeout'
  | 'budget'
  | 'discarded'
  | 'bad_first_frame'
  | 'bad_client_info'
  | 'bad_box'
  | 'internal';

export type HandshakeResult =
  /** A client: the connection waits for adoption. */
  | {
      type: 'client';
      key: Uint8Array;
      serverInfo: Uint8Array;
      meshKey: string | undefined;
      prober: boolean;
      notIdeal: boolean;
    }
  /** No DERP upgrade: the connection waits to be served by somebody else, all its bytes still buffered. */
  | { type: 'http'; malformed: string | undefined }
  /** The connection is closed. */
  | { type: 'failed'; failure: HandshakeFailure; upgraded: boolean; text: string };
