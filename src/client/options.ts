import {
  badOption,
  bytesOf,
  type Checks,
  checkBoolean,
  checkOptions,
  checkSignal,
  checkString,
  integerIn,
} from '../checks.js';
import { DerpError } from '../errors.js';
import { isAppName } from '../protocol/app_name.js';
import { PROTOCOL_VERSION } from '../protocol/frame.js';
import type { ClientInfo } from '../protocol/info.js';
import { checkPublicKey, type PublicKey } from '../protocol/key.js';
import { isMeshKey } from '../protocol/mesh_key.js';
import type { SignalOptions } from './abortable.js';
import { TIMEOUT_RANGE } from './defaults.js';

/** What a client says about itself to a relay. */
export interface ClientInfoOptions {
  /** 64 hexadecimal digits that make the client a mesh peer, if the relay has the same. Default: none. */
  meshKey?: string;
  /** Whether the client answers pings of the relay, and says so in its ClientInfo. Default: true. */
  canAckPings?: boolean;
  /** Whether the client is a monitoring probe. Default: false. */
  isProber?: boolean;
  /** Name of this program, for the relay's statistics and rules: at most 32 printable ASCII characters. Default: empty. */
  appName?: string;
}

/** Options of `Client.connect`. */
export interface ClientOptions extends ClientInfoOptions, SignalOptions {
  /** The relay's key, if known: its ServerKey is then not waited for. */
  serverPublicKey?: PublicKey;
  /** Bytes that were already read from the connection, after the HTTP answer. Default: none. */
  head?: Uint8Array;
  /** Milliseconds for ServerKey to arrive and ClientInfo to leave. Default: 10,000. */
  handshakeTimeout?: number;
}

/** What {@link ClientInfoOptions} take; the form of a mesh key is looked at by {@link clientInfoOf}. */
export const CLIENT_INFO_CHECKS: Checks<ClientInfoOptions> = {
  meshKey: checkString,
  canAckPings: checkBoolean,
  isProber: checkBoolean,
  appName(value, name) {
    checkString(value, name);
    if (!isAppName(value)) throw badOption(`${name}: must be at most 32 printable ASCII characters`);
  },
};

const CLIENT_CHECKS: Checks<ClientOptions> = {
  ...CLIENT_INFO_CHECKS,
  serverPublicKey: checkPublicKey,
  head: bytesOf,
  handshakeTimeout: integerIn(TIMEOUT_RANGE),
  signal: checkSignal,
};

/** @throws DerpError `ERR_DERP_BAD_OPTION` */
export function checkClientOptions(options: unknown): asserts options is ClientOptions {
  checkOptions(options, 'options', CLIENT_CHECKS);
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` for a mesh key that is none */
export function clientInfoOf(options: ClientInfoOptions): ClientInfo {
  const { meshKey, canAckPings = true, isProber = false, appName = '' } = options;
  if (meshKey !== undefined && !isMeshKey(meshKey)) {
    throw new DerpError('ERR_DERP_BAD_OPTION', `meshKey: ${meshKey.length} characters, needs 64 hexadecimal digits`);
  }
  const info = { version: PROTOCOL_VERSION, canAckPings, isProber, appName };
  return meshKey === undefined ? info : { ...info, meshKey: meshKey.toLowerCase() };
}

/** @throws DerpError `ERR_DERP_NO_MESH_KEY`: the relay would close the connection of a client that did not offer one */
export function needMeshKey(meshKey: string | undefined, method: string): void {
  if (meshKey !== undefined) return;
  throw new DerpError('ERR_DERP_NO_MESH_KEY', `${method} is for mesh peers: give the client the option meshKey`);
}
