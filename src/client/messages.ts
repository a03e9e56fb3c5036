/** What a client receives. */
import type { ServerInfo } from '../protocol/info.js';
import type { PublicKey } from '../protocol/key.js';

/** A packet of another client. */
export interface ReceivedPacket {
  readonly type: 'packet';
  readonly source: PublicKey;
  /** 0 to 65,536 bytes. Stays valid; may share memory with packets received at the same time. */
  readonly data: Buffer;
}

/** Values of {@link PeerGoneMessage.reason}. */
export const PeerGoneReason = {
  /** The peer had sent a packet to this client, and is now gone from the region. */
  DISCONNECTED: 0x00,
  /** A packet was sent to a peer that is not here. */
  NOT_HERE: 0x01,
  /** Never on the wire: a watch loop lost the connection that reported the peer. */
  MESH_CONNECTION_BROKE: 0xf0,
} as const;

/** A peer cannot be reached over this relay. */
export interface PeerGoneMessage {
  readonly type: 'peerGone';
  readonly peer: PublicKey;
  /** A value of {@link PeerGoneReason}, or one that newer relays send. */
  readonly reason: number;
}

/** Bits of {@link PeerPresentMessage.flags}. */
export const PeerPresentFlags = {
  /** None of the others. */
  REGULAR: 1,
  MESH_PEER: 2,
  PROBER: 4,
  /** The client would rather be connected to another relay of the region. */
  NOT_IDEAL: 8,
} as const;

/** A client is connected to the relay; only for clients that watch. Repeats for every connection of a key. */
export interface PeerPresentMessage {
  readonly type: 'peerPresent';
  readonly key: PublicKey;
  /** The client's IP address, IPv4 in dotted form; missing from old relays. */
  readonly address?: string;
  /** The client's port; missing from old relays. */
  readonly port?: number;
  /** Sum of {@link PeerPresentFlags}; 0 from old relays. */
  readonly flags: number;
}

/** The relay is alive. */
export interface KeepAliveMessage {
  readonly type: 'keepAlive';
}

/** The relay asks for a pong; already answered unless `canAckPings` is off. */
export interface PingMessage {
  readonly type: 'ping';
  /** 8 bytes, to be sent back. */
  readonly data: Buffer;
}

/** A pong that no `ping()` of this client waits for. */
export interface PongMessage {
  readonly type: 'pong';
  /** 8 bytes. */
  readonly data: Buffer;
}

/** Whether the relay finds something wrong with the connection. */
export interface HealthMessage {
  readonly type: 'health';
  /** What is wrong; empty = healthy again. */
  readonly problem: string;
}

/** The relay is about to restart. */
export interface RestartingMessage {
  readonly type: 'restarting';
  /** Milliseconds to wait before reconnecting, so that not all clients come back at once. */
  readonly reconnectIn: number;
  /** Milliseconds to keep trying. */
  readonly tryFor: number;
}

/** The relay has let this client in; peers can reach it from now on. */
export interface ServerInfoMessage extends ServerInfo {
  readonly type: 'serverInfo';
}

/** What `recv` returns. */
export type ReceivedMessage =
  | ReceivedPacket
  | PeerGoneMessage
  | PeerPresentMessage
  | KeepAliveMessage
  | PingMessage
  | PongMessage
  | HealthMessage
  | RestartingMessage
  | ServerInfoMessage;
