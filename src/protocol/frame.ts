/**
 * The frames of DERP, version 2.
 *
 * ```
 * relay  -> client   ServerKey
 * client -> relay    ClientInfo
 * relay  -> client   ServerInfo, then both sides send frames freely
 * ```
 * A frame is 1 byte type, 4 bytes length of what follows, body. All integers are big-endian.
 */
import { DerpError } from '../errors.js';
import { KEY_LENGTH, PublicKey, writeKey } from './key.js';

/** Version of the protocol, as ClientInfo and ServerInfo say it. */
export const PROTOCOL_VERSION = 2;

/** Largest packet in bytes that DERP carries, without header and keys. */
export const MAX_PACKET_SIZE = 64 << 10;

/** Bytes in front of every body: type and length. */
export const FRAME_HEADER_LENGTH = 5;

/** Largest frame body in bytes that a client accepts. */
export const MAX_CLIENT_FRAME_SIZE = 1 << 20;

/** Largest ServerKey body in bytes; what follows magic and key is for the future and ignored. */
export const MAX_SERVER_KEY_SIZE = 1 << 10;

/** Bytes that a ping or pong of a client carries. */
export const PING_LENGTH = 8;

/** Begin of a ServerKey body: "DERP" and the key emoji. */
export const MAGIC: Buffer = Buffer.from('44455250f09f9491', 'hex');

/** Types of frames; the comment gives the body. */
export const FrameType = {
  /** relay to client: 8 magic, 32 key, more is ignored */
  SERVER_KEY: 0x01,
  /** client to relay: 32 key, 24 nonce, box of JSON */
  CLIENT_INFO: 0x02,
  /** relay to client: 24 nonce, box of JSON */
  SERVER_INFO: 0x03,
  /** client to relay: 32 destination, packet */
  SEND_PACKET: 0x04,
  /** relay to client: 32 source, packet */
  RECV_PACKET: 0x05,
  /** relay to client: empty */
  KEEP_ALIVE: 0x06,
  /** client to relay: 1, non-zero = this relay is the client's home */
  NOTE_PREFERRED: 0x07,
  /** relay to client: 32 key, 1 reason (missing in old relays) */
  PEER_GONE: 0x08,
  /** relay to watcher: 32 key, 16 IP (IPv4 as v4-in-v6), 2 port, 1 flags (old relays end earlier) */
  PEER_PRESENT: 0x09,
  /** mesh peer to relay: 32 source, 32 destination, packet */
  FORWARD_PACKET: 0x0a,
  /** mesh peer to relay: empty */
  WATCH_CONNS: 0x10,
  /** mesh peer to relay: 32 key */
  CLOSE_PEER: 0x11,
  /** both ways: 8 bytes, echoed in PONG */
  PING: 0x12,
  /** both ways: the ping's 8 bytes */
  PONG: 0x13,
  /** relay to client: text, empty = healthy */
  HEALTH: 0x14,
  /** relay to client: 4 ms until reconnecting, 4 ms to keep trying */
  RESTARTING: 0x15,
} as const;

/** The type byte of a frame; relays of the future may send others than {@link FrameType} knows. */
export type FrameTypeByte = number;

/** Allocates a frame with its header written; the body, from byte 5 on, is the caller's to fill. */
export function allocFrame(type: FrameTypeByte, bodyLength: number): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_LENGTH + bodyLength);
  writeFrameHeader(frame, type, bodyLength);
  return frame;
}

/** Writes the 5 bytes of a frame header at the begin of `target`. */
export function writeFrameHeader(target: Buffer, type: FrameTypeByte, bodyLength: number): void {
  target[0] = type;
  target.writeUInt32BE(bodyLength, 1);
}

/** Length in bytes of the body whose header begins at `offset`. At least 5 bytes must be there. */
export function readBodyLength(bytes: Buffer, offset = 0): number {
  return bytes.readUInt32BE(offset + 1);
}

/** A whole frame with a body made of `parts`. */
export function frameOf(type: FrameTypeByte, ...parts: Uint8Array[]): Buffer {
  const frame = allocFrame(
    type,
    parts.reduce((sum, part) => sum + part.length, 0),
  );
  let at = FRAME_HEADER_LENGTH;
  for (const part of parts) {
    frame.set(part, at);
    at += part.length;
  }
  return frame;
}

export function serverKeyFrame(relay: PublicKey): Buffer {
  const frame = allocFrame(FrameType.SERVER_KEY, MAGIC.length + KEY_LENGTH);
  frame.set(MAGIC, FRAME_HEADER_LENGTH);
  writeKey(relay, frame, FRAME_HEADER_LENGTH + MAGIC.length);
  return frame;
}

/**
 * The relay's key out of a ServerKey body.
 * @throws DerpError `ERR_DERP_BAD_HANDSHAKE` when the body is short or does not begin with the magic
 */
export function readServerKey(body: Buffer): PublicKey {
  const end = MAGIC.length + KEY_LENGTH;
  if (body.length < end) {
    throw new DerpError('ERR_DERP_BAD_HANDSHAKE', `ServerKey of ${body.length} bytes, needs ${end}`);
  }
  if (!body.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new DerpError(
      'ERR_DERP_BAD_HANDSHAKE',
      'ServerKey does not begin with the magic of DERP: this is not a DERP relay',
    );
  }
  return PublicKey.fromBytes(body.subarray(MAGIC.length, end));
}

/** @throws DerpError `ERR_DERP_PACKET_TOO_BIG` over {@link MAX_PACKET_SIZE} */
export function sendPacketFrame(destination: PublicKey, packet: Uint8Array): Buffer {
  checkPacketSize(packet);
  const frame = allocFrame(FrameType.SEND_PACKET, KEY_LENGTH + packet.length);
  writeKey(destination, frame, FRAME_HEADER_LENGTH);
  frame.set(packet, FRAME_HEADER_LENGTH + KEY_LENGTH);
  return frame;
}

/** @throws DerpError `ERR_DERP_PACKET_TOO_BIG` over {@link MAX_PACKET_SIZE} */
export function forwardPacketFrame(source: PublicKey, destination: PublicKey, packet: Uint8Array): Buffer {
  checkPacketSize(packet);
  const frame = allocFrame(FrameType.FORWARD_PACKET, 2 * KEY_LENGTH + packet.length);
  writeKey(source, frame, FRAME_HEADER_LENGTH);
  writeKey(destination, frame, FRAME_HEADER_LENGTH + KEY_LENGTH);
  frame.set(packet, FRAME_HEADER_LENGTH + 2 * KEY_LENGTH);
  return frame;
}

export function notePreferredFrame(preferred: boolean): Buffer {
  const frame = allocFrame(FrameType.NOTE_PREFERRED, 1);
  frame[FRAME_HEADER_LENGTH] = preferred ? 1 : 0;
  return frame;
}

export function watchConnsFrame(): Buffer {
  return allocFrame(FrameType.WATCH_CONNS, 0);
}

export function closePeerFrame(peer: PublicKey): Buffer {
  const frame = allocFrame(FrameType.CLOSE_PEER, KEY_LENGTH);
  writeKey(peer, frame, FRAME_HEADER_LENGTH);
  return frame;
}

/** @throws DerpError `ERR_DERP_BAD_FRAME` when `data` is not 8 bytes */
export function pingFrame(data: Uint8Array): Buffer {
  return pingOrPong(FrameType.PING, data);
}

/** @throws DerpError `ERR_DERP_BAD_FRAME` when `data` is not 8 bytes */
export function pongFrame(data: Uint8Array): Buffer {
  return pingOrPong(FrameType.PONG, data);
}

function pingOrPong(type: FrameTypeByte, data: Uint8Array): Buffer {
  if (data.length !== PING_LENGTH) {
    throw new DerpError('ERR_DERP_BAD_FRAME', `ping or pong of ${data.length} bytes, needs ${PING_LENGTH}`);
  }
  return frameOf(type, data);
}

function checkPacketSize(packet: Uint8Array): void {
  if (packet.length > MAX_PACKET_SIZE) {
    throw new DerpError(
      'ERR_DERP_PACKET_TOO_BIG',
      `packet of ${packet.length} bytes, DERP carries at most ${MAX_PACKET_SIZE}: split it`,
    );
  }
}
