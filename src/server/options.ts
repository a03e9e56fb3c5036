/** Options of a {@link Server}; every number has its default and reason in `defaults.ts`. */
import type { ServerAdmissionOptions } from '../admission/options.js';
import type { Logger } from '../log.js';
import type { Pem } from '../tls/pem_option.js';

/** What happens when several connections share one key. */
export type DuplicatePolicy = 'last-writer-active' | 'disable-fighters';

/**
 * Options of a {@link Server}. Times are in milliseconds, sizes in bytes; ranges and defaults of numbers are in `option_ranges.ts` and
 * `docs/api.md`.
 */
export interface ServerOptions {
  /** Whether DERP is served; if not, `/derp` is a page like any other. Default: true. */
  derp?: boolean;
  /**
   * Worker threads that move packets, 1 to 63. Default: one per CPU within the CPU affinity, the CPU quota (control groups),
   * `queues.ringBytes` and the memory limit.
   */
  shards?: number;
  /** What happens when several connections share one key. Default: `last-writer-active`. */
  duplicatePolicy?: DuplicatePolicy;
  /** Where log lines go. Default: no log. */
  logger?: Logger;
  /** Whether the end of every client is logged, at debug level; costs the control plane some time per client. Default: false. */
  logClients?: boolean;
  /** The relay's region. */
  mesh?: ServerMeshOptions;
  /** Who may use the relay. Default: anyone who can reach it. */
  admission?: ServerAdmissionOptions;
  /** Limits of handshakes. */
  handshake?: ServerHandshakeOptions;
  /**
   * Proxies that may tell the client's address, as ranges (`192.0.2.0/24`) or addresses: by a PROXY header (version 1 or 2) in front of the
   * connection, TLS included, by `X-Forwarded-For` or by `X-Real-IP`. The client's address then counts everywhere. Default: none.
   */
  trustProxy?: readonly string[];
  /** Connections that all listeners accept together; others are closed at once and counted. Default: no limit. */
  acceptLimit?: ServerAcceptLimit;
  /** Deadlines and intervals of clients. */
  timeouts?: ServerTimeoutOptions;
  /** Bounds of memory. */
  queues?: ServerQueueOptions;
}

/** The other relays of the region. */
export interface ServerMeshOptions {
  /** 64 hexadecimal digits that make a client a mesh peer. Default: none. */
  key?: string;
  /**
   * Relays to link with, as {@link Server.addMeshPeer} takes them, from the first {@link Server.listen}, {@link Server.attach} or
   * {@link Server.accept} on; needs `key`. Default: none.
   */
  with?: readonly string[];
  /** PEM certificates of the trusted authorities for these relays, in place of the roots of Node and the system. */
  ca?: Pem | readonly Pem[];
  /** Whether relays that are not on this machine's loopback may be linked with over plain HTTP. Default: false. */
  insecureHttp?: boolean;
  /**
   * Longest wait before a link is dialled again, in milliseconds. The first wait is 250 ms, and waits grow to 800 ms in the first minute,
   * then to this. Default: 5,000.
   */
  retryInterval?: number;
  /** Milliseconds from one DNS lookup of an entry `dns:NAME` to the next. Default: 10,000. */
  dnsInterval?: number;
  /** Certificate name of relays behind `dns:NAME` if the entry has none. Default: each entry must name one. */
  hostname?: string;
}

/** A token bucket of connections. */
export interface ServerAcceptLimit {
  /** Connections accepted a second, from 0 on. Default: no limit. */
  perSecond?: number;
  /** Connections accepted at once; the bucket is full at first. Default: no bound, and then `perSecond` limits nothing. */
  burst?: number;
}

/** From accepting a connection to the end of its handshake. */
export interface ServerHandshakeOptions {
  /** Threads for handshakes. Default: one per four of these CPUs, at least 1 and at most 8. */
  threads?: number;
  /** Handshakes that may be in progress at once; beyond, silent ones are ended for newcomers. Default: 4,096. */
  maxPending?: number;
  /**
   * Handshakes that one source (an IPv4 address, an IPv6 /64) may have in progress; beyond, its own silent ones are ended for its newcomers.
   * Default: a sixteenth of `maxPending`, at least 16.
   */
  maxPendingPerSource?: number;
  /** Bytes that all handshakes in progress may hold together, TLS's own included. Default: 256 MiB. */
  maxBytes?: number;
  /** Milliseconds for the first byte of a connection. Default: 3,000, or `requestTimeout` if that is less. */
  firstByteTimeout?: number;
  /** Milliseconds for the HTTP request head, TLS included, once its first byte came. Default: 10,000. */
  requestTimeout?: number;
  /** Milliseconds for the client's ClientInfo, once ServerKey was sent. Default: 10,000. */
  clientInfoTimeout?: number;
}

/** Times of connected clients. */
export interface ServerTimeoutOptions {
  /** Milliseconds that a client's socket may accept no output before the client is closed; 0 = no limit. Default: 2,000. */
  write?: number;
  /** Milliseconds between KeepAlive frames; up to 1/12 of it is added per connection. Default: 60,000. */
  keepAliveInterval?: number;
  /** Milliseconds between two measurements of each client's TCP round-trip time; 0 = never. Default: 10,000. */
  rttInterval?: number;
}

/** Bounds of what waits in memory. */
export interface ServerQueueOptions {
  /** Packets that each of a client's two send queues holds, not counting the kernel's buffer. Default: 32. */
  depth?: number;
  /** Bytes that the send queues of one shard may hold together. Default: 256 MiB. */
  maxBytes?: number;
  /** Total bytes of the rings between shards; each ring gets at least 256 KiB. Default: 64 MiB. */
  ringBytes?: number;
}

/** The send limit of a client; see {@link Server.setRateLimit}. */
export interface RateLimit {
  /** 0 = no limit. */
  readonly bytesPerSecond: number;
  /** Bytes that a client may send at once. */
  readonly burst: number;
}

export interface CloseOptions {
  /** Milliseconds over which clients are closed one after another. Default: all at once. */
  drainTime?: number;
}

export interface ListenOptions {
  /** Address; a name is resolved once. Default: `::`, both families (IPv4 only where the machine has no IPv6). */
  host?: string;
  /** 0: a free port. To be given unless `fd` is. */
  port?: number;
  /**
   * A listening TCP socket in place of `host` and `port`, as a service manager passes it. It belongs to the listener from then on, which
   * closes its descriptor and leaves the socket as it is for others that have it.
   */
  fd?: number;
  /** Milliseconds of idleness before TCP keepalive probes. Default: 600,000. */
  tcpKeepaliveTime?: number;
  /** TCP_USER_TIMEOUT in milliseconds. Default: 15,000. */
  tcpUserTimeout?: number;
  /** Certificates: connections are TLS. Default: they are plain. */
  tls?: import('../tls/tls_context.js').TlsContext;
  /** Serves requests other than DERP upgrades; see `createPageServer`. Default: one that answers 426 to everything. */
  httpServer?: import('node:http').Server;
}

/** A relay of the region to which a {@link Server} keeps a link. */
export interface MeshPeer {
  /** The relay's address as given, without scheme and path. */
  readonly host: string;
  /** Whether the link is up now. */
  readonly isUp: boolean;
  /**
   * Resolves when the link has been up for one second, in which the other relay sends its keys. Rejects with
   * `ERR_DERP_CLOSED` if it was closed before that, with `ERR_DERP_SELF_CONNECT` when the other relay is this one.
   */
  readonly ready: Promise<void>;
  /** Ends the link for good; its keys are no longer reachable over it. Resolves when it has ended. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A listener of a {@link Server}. */
export interface Listener {
  readonly host: string;
  readonly port: number;
  /** Stops accepting; existing connections stay. Idempotent. */
  close(): void;
  [Symbol.dispose](): void;
  [Symbol.asyncDispose](): Promise<void>;
}
