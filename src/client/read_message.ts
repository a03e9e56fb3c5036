/** How what a client receives is read from frames. */
import { FrameType, PING_LENGTH } from '../protocol/frame.js';
import type { Frame } from '../protocol/frame_reader.js';
import { KEY_LENGTH, PublicKey } from '../protocol/key.js';
import { PeerGoneReason, type PeerPresentMessage, type ReceivedMessage } from './messages.js';

const IP_LENGTH = 16;
const ADDRESS_LENGTH = IP_LENGTH + 2;
const V4_IN_V6 = Buffer.from('00000000000000000000ffff', 'hex');

/** The message of a frame; `undefined` for ServerInfo, which needs a key, for unknown types and for frames shorter than their fixed part. */
export function readMessage({ type, body }: Frame): ReceivedMessage | undefined {
  switch (type) {
    case FrameType.RECV_PACKET:
      if (body.length < KEY_LENGTH) return undefined;
      return { type: 'packet', source: keyAt(body), data: body.subarray(KEY_LENGTH) };
    case FrameType.KEEP_ALIVE:
      return { type: 'keepAlive' };
    case FrameType.PEER_GONE:
      if (body.length < KEY_LENGTH) return undefined;
      return { type: 'peerGone', peer: keyAt(body), reason: body[KEY_LENGTH] ?? PeerGoneReason.DISCONNECTED };
    case FrameType.PEER_PRESENT:
      return readPeerPresent(body);
    case FrameType.PING:
      return body.length < PING_LENGTH ? undefined : { type: 'ping', data: body.subarray(0, PING_LENGTH) };
    case FrameType.PONG:
      return body.length < PING_LENGTH ? undefined : { type: 'pong', data: body.subarray(0, PING_LENGTH) };
    case FrameType.HEALTH:
      return { type: 'health', problem: body.toString('utf8') };
    case FrameType.RESTARTING:
      if (body.length < 8) return undefined;
      return { type: 'restarting', reconnectIn: body.readUInt32BE(0), tryFor: body.readUInt32BE(4) };
    default:
      return undefined;
  }
}

function keyAt(body: Buffer): PublicKey {
  return PublicKey.fromBytes(body.subarray(0, KEY_LENGTH));
}

function readPeerPresent(body: Buffer): PeerPresentMessage | undefined {
  if (body.length < KEY_LENGTH) return undefined;
  const key = keyAt(body);
  const rest = body.subarray(KEY_LENGTH);
  if (rest.length < ADDRESS_LENGTH) return { type: 'peerPresent', key, flags: 0 };
  const address = formatIp(rest.subarray(0, IP_LENGTH));
  return { type: 'peerPresent', key, address, port: rest.readUInt16BE(IP_LENGTH), flags: rest[ADDRESS_LENGTH] ?? 0 };
}

function formatIp(ip: Buffer): string {
  if (ip.subarray(0, V4_IN_V6.length).equals(V4_IN_V6)) return ip.subarray(V4_IN_V6.length).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => ip.readUInt16BE(2 * i).toString(16));
  // URL writes IPv6 hosts in the short form of RFC 5952.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
