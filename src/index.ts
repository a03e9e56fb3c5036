/** derplane: a DERP relay and clients for it. Everything public is exported here. */

export type { AdmissionRequest } from './admission/decision.js';
export type { AdmitDecision, AdmitDetail, AdmitHook } from './admission/hook.js';
export type { ServerAdmissionOptions } from './admission/options.js';
export type { CertificateExpiry } from './certificates/expiry.js';
export type { SignalOptions } from './client/abortable.js';
export { Client } from './client/client.js';
export type { Conn } from './client/conn.js';
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
export { type ReceivedDetail, RelayClient, type RelayClientOptions } from './client/relay_client.js';
export type { WatchLoopEnd, WatchLoopOptions } from './client/watch_loop.js';
export { DerpError, type DerpErrorCode, type SystemErrorCode, type SystemErrorDetail } from './errors.js';
export { BootstrapDns, type BootstrapDnsCounts, type BootstrapDnsOptions } from './http/bootstrap_dns.js';
export type { NameResolver } from './http/bootstrap_names.js';
export { type DebugAccess, debugAccess } from './http/debug_access.js';
export { type DebugPagesOptions, type DebugSource, debugPages } from './http/debug_pages.js';
export type { StunSource } from './http/debug_vars.js';
export { createMetricsServer, type MetricsServerOptions } from './http/metrics_server.js';
export { createPageServer, type PageServerOptions } from './http/page_server.js';
export { type PagesOptions, pages } from './http/pages.js';
export { type Logger, silentLogger } from './log.js';
export type { PacketForwarder } from './protocol/forwarder.js';
export { MAX_PACKET_SIZE } from './protocol/frame.js';
export { PrivateKey, PublicKey } from './protocol/key.js';
export type { ClientCursor, ClientList, ClientQuery } from './server/client_query.js';
export type { ClientSort, ListedClient } from './server/client_records.js';
export type {
  CloseOptions,
  DuplicatePolicy,
  Listener,
  ListenOptions,
  MeshPeer,
  RateLimit,
  ServerAcceptLimit,
  ServerHandshakeOptions,
  ServerMeshOptions,
  ServerOptions,
  ServerQueueOptions,
  ServerTimeoutOptions,
} from './server/options.js';
export { Server } from './server/server.js';
export type { ConnectedClient, GoneClient, MeshLinkDown, MeshLinkUp, ServerEvents } from './server/server_events.js';
export type { Stats } from './server/stats.js';
export type { ServerStats, ShardStats } from './server/stats_types.js';
export type { ConnectionTraffic } from './server/traffic.js';
export { StunServer, type StunServerOptions, type StunStats } from './stun/stun_server.js';
export type { Pem } from './tls/pem_option.js';
export { type Certificate, TlsContext, type TlsContextOptions } from './tls/tls_context.js';
