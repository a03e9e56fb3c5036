/** ClientInfo and ServerInfo: what both sides tell each other in a sealed box when they meet. */
import { DerpError } from '../errors.js';
import { invalidAppName, isAppName } from './app_name.js';
import { BOX_OVERHEAD, Box, NONCE_LENGTH } from './box.js';
import { allocFrame, FRAME_HEADER_LENGTH, FrameType, PROTOCOL_VERSION } from './frame.js';
import { goBoolean, goInteger, goString, type JsonValue, type MemberReader, readGoObject } from './go_json.js';
import { KEY_LENGTH, type PrivateKey, PublicKey, writeKey } from './key.js';
import { isMeshKey } from './mesh_key.js';

/** Smallest ClientInfo body in bytes: key and nonce. */
export const MIN_CLIENT_INFO_SIZE = KEY_LENGTH + NONCE_LENGTH;

/** Largest ClientInfo body in bytes that a relay reads. */
export const MAX_CLIENT_INFO_SIZE = 256 << 10;

/** What a client says about itself. */
export interface ClientInfo {
  /** The mesh key that the client offers, lower case; all zeros possible, which prove nothing. */
  meshKey?: string;
  /** Protocol version of the client; not checked. */
  version: number;
  /** Whether the client answers pings. */
  canAckPings: boolean;
  /** Whether the client is a monitoring probe. */
  isProber: boolean;
  /** Name of the client's program; relays take at most 32 bytes of printable ASCII. */
  appName: string;
}

/** What a relay says about itself. */
export interface ServerInfo {
  version: number;
  /** Bytes per second, headers included, that the client may send; 0 = no limit. Clients drop what exceeds it. */
  tokenBucketBytesPerSecond: number;
  /** Bytes that may exceed the rate at once. */
  tokenBucketBytesBurst: number;
}

/** The JSON of a ClientInfo, as derper writes it. */
export function encodeClientInfo(info: ClientInfo): Buffer {
  const json = {
    ...(info.meshKey === undefined ? {} : { meshKey: info.meshKey }),
    ...(info.version === 0 ? {} : { version: info.version }),
    CanAckPings: info.canAckPings,
    ...(info.isProber ? { IsProber: true } : {}),
    ...(info.appName === '' ? {} : { AppName: info.appName }),
  };
  return Buffer.from(JSON.stringify(json));
}

/**
 * Reads the JSON of a ClientInfo under Go's rules; what is missing is zero, empty or false.
 * @throws DerpError `ERR_DERP_CLIENT_INFO`
 */
export function decodeClientInfo(json: Buffer): ClientInfo {
  const info: ClientInfo = { version: 0, canAckPings: false, isProber: false, appName: '' };
  readInfo('ERR_DERP_CLIENT_INFO', 'ClientInfo', json, {
    meshkey(value) {
      info.meshKey = readMeshKey(value);
    },
    version(value) {
      info.version = goInteger(value) ?? info.version;
    },
    canackpings(value) {
      info.canAckPings = goBoolean(value) ?? info.canAckPings;
    },
    isprober(value) {
      info.isProber = goBoolean(value) ?? info.isProber;
    },
    appname(value) {
      info.appName = goString(value) ?? info.appName;
    },
  });
  return info;
}

/** The JSON of a ServerInfo, as derper writes it. */
export function encodeServerInfo(info: ServerInfo): Buffer {
  const json = {
    ...(info.version === 0 ? {} : { version: info.version }),
    ...(info.tokenBucketBytesPerSecond === 0 ? {} : { TokenBucketBytesPerSecond: info.tokenBucketBytesPerSecond }),
    ...(info.tokenBucketBytesBurst === 0 ? {} : { TokenBucketBytesBurst: info.tokenBucketBytesBurst }),
  };
  return Buffer.from(JSON.stringify(json));
}

/**
 * Reads the JSON of a ServerInfo under Go's rules.
 * @throws DerpError `ERR_DERP_BAD_HANDSHAKE`
 */
export function decodeServerInfo(json: Buffer): ServerInfo {
  const info: ServerInfo = { version: 0, tokenBucketBytesPerSecond: 0, tokenBucketBytesBurst: 0 };
  readInfo('ERR_DERP_BAD_HANDSHAKE', 'ServerInfo', json, {
    version(value) {
      info.version = goInteger(value) ?? info.version;
    },
    tokenbucketbytespersecond(value) {
      info.tokenBucketBytesPerSecond = goInteger(value) ?? info.tokenBucketBytesPerSecond;
    },
    tokenbucketbytesburst(value) {
      info.tokenBucketBytesBurst = goInteger(value) ?? info.tokenBucketBytesBurst;
    },
  });
  return info;
}

/** A ClientInfo that opened: the client owns `key`. */
export interface OpenedClientInfo {
  readonly key: PublicKey;
  readonly info: ClientInfo;
  /** For {@link sealServerInfo}, which is then half as expensive. */
  readonly box: Box;
}

/**
 * Opens the body of a ClientInfo frame, on the relay's side.
 * @throws DerpError `ERR_DERP_CLIENT_INFO` for a wrong length, an all-zero key, bad JSON or a bad AppName; `ERR_DERP_BOX` when the box does not open
 */
export function openClientInfo(frameBody: Buffer, serverPrivateKey: PrivateKey): OpenedClientInfo {
  if (frameBody.length < MIN_CLIENT_INFO_SIZE || frameBody.length > MAX_CLIENT_INFO_SIZE) {
    throw new DerpError(
      'ERR_DERP_CLIENT_INFO',
      `ClientInfo of ${frameBody.length} bytes, needs ${MIN_CLIENT_INFO_SIZE} to ${MAX_CLIENT_INFO_SIZE}`,
    );
  }
  const key = PublicKey.fromBytes(frameBody.subarray(0, KEY_LENGTH));
  if (key.isZero) throw new DerpError('ERR_DERP_CLIENT_INFO', 'ClientInfo with an all-zero key');
  const box = new Box(key, serverPrivateKey);
  const info = decodeClientInfo(box.open(frameBody.subarray(KEY_LENGTH)));
  if (!isAppName(info.appName)) throw new DerpError('ERR_DERP_CLIENT_INFO', invalidAppName(info.appName));
  return { key, info, box };
}

const ownServerInfo = encodeServerInfo({
  version: PROTOCOL_VERSION,
  tokenBucketBytesPerSecond: 0,
  tokenBucketBytesBurst: 0,
});

/**
 * The complete ServerInfo frame for a client; never announces a rate.
 * @param box - that of {@link openClientInfo}, if at hand
 */
export function sealServerInfo(
  clientKey: PublicKey,
  serverPrivateKey: PrivateKey,
  box: Box = new Box(clientKey, serverPrivateKey),
): Buffer {
  const frame = allocFrame(FrameType.SERVER_INFO, BOX_OVERHEAD + ownServerInfo.length);
  box.sealInto(frame.subarray(FRAME_HEADER_LENGTH), ownServerInfo);
  return frame;
}

/**
 * The complete ClientInfo frame, on the client's side.
 * @param clientKey - the public half of the key that `box` was made with
 */
export function sealClientInfo(info: ClientInfo, clientKey: PublicKey, box: Box): Buffer {
  const json = encodeClientInfo(info);
  const frame = allocFrame(FrameType.CLIENT_INFO, KEY_LENGTH + BOX_OVERHEAD + json.length);
  writeKey(clientKey, frame, FRAME_HEADER_LENGTH);
  box.sealInto(frame.subarray(FRAME_HEADER_LENGTH + KEY_LENGTH), json);
  return frame;
}

/**
 * Opens the body of a ServerInfo frame, on the client's side.
 * @throws DerpError `ERR_DERP_BOX` when the box does not open, `ERR_DERP_BAD_HANDSHAKE` for bad JSON
 */
export function openServerInfo(frameBody: Buffer, box: Box): ServerInfo {
  return decodeServerInfo(box.open(frameBody));
}

/** Every value that is not a mesh key is refused, `null` and the empty text too. */
function readMeshKey(value: JsonValue): string {
  const text = goString(value);
  if (text === undefined || !isMeshKey(text)) throw new Error('needs 64 hexadecimal digits');
  return text.toLowerCase();
}

function readInfo(
  code: 'ERR_DERP_CLIENT_INFO' | 'ERR_DERP_BAD_HANDSHAKE',
  what: string,
  json: Buffer,
  members: Record<string, MemberReader>,
): void {
  try {
    readGoObject(json, members);
  } catch (cause) {
    throw new DerpError(code, `${what} is not valid JSON: ${(cause as Error).message}`, { cause });
  }
}
