/** derplane: a DERP relay and clients for it. Everything public is exported here. */
export { Client } from './client/client.js';
export type { Conn } from './client/conn.js';
export { HttpClient, type HttpClientOptions, type ReceivedDetail } from './client/http_client.js';
export {
  type HealthMessage,
  type KeepAliveMessage,
  type PeerGoneMessage,
  PeerGoneReason,
  PeerPresentFlags,
  type PeerPresentMessage,
  type PingMessage,
  type PongMessage,
  type ReceivedMessage,
  type ReceivedPacket,
  type RestartingMessage,
  type ServerInfoMessage,
} from './client/messages.js';
export type { ClientInfoOptions, ClientOptions } from './client/options.js';
export { DerpError, type DerpErrorCode } from './errors.js';
export { createPageServer } from './http/page_server.js';
export { type PagesOptions, pages } from './http/pages.js';
export { type Logger, silentLogger } from './log.js';
export type { PacketForwarder } from './protocol/forwarder.js';
export { MAX_PACKET_SIZE } from './protocol/frame.js';
export { PrivateKey, PublicKey } from './protocol/key.js';
export type { DuplicatePolicy, Listener, ListenOptions, ServerOptions } from './server/options.js';
export { Server } from './server/server.js';
export type { Stats } from './server/stats.js';
