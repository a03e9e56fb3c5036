/**
 * The addon, typed. Everything below runs in C++ (`native/binding`); this file only finds the binary and says what it offers.
 *
 * A connection is known to JavaScript by a number, its `ConnectionId`: ids are process-wide, so a connection crosses threads as a
 * number. An id is valid from accept (or import) until the connection is adopted, detached or discarded; ids are never reused.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { DerpError } from './errors.js';

/** Process-wide number of a connection that no shard owns yet. */
export type ConnectionId = number;

/** What a relay needs to know before its first shard starts. All sizes in bytes, all times in milliseconds. */
export interface NativeRelayConfig {
  /** Number of shards, 1 to 63. */
  shards: number;
  /** The relay's own public key, 32 bytes. */
  publicKey: Uint8Array;
  /** Packets that each of a client's two queues holds beyond what the kernel took. */
  queueDepth: number;
  /** Time that the kernel may refuse a client's output before the client is closed; 0 = never. */
  writeTimeout: number;
  /** The same for mesh peers; 0 = never. */
  meshWriteTimeout: number;
  /** Base interval of KeepAlive frames; a jitter of up to 1/12 of it is added once per connection. */
  keepAliveInterval: number;
  /** Whether all connections of a key are disabled when two of them fight over it. */
  disableFighters: boolean;
  /** Milliseconds between two measurements of a client's TCP round-trip time; 0 = never. */
  rttInterval: number;
  /** Handshakes that may be in progress at once; further connections are refused and counted. */
  maxHandshakes: number;
  /** Handshakes that one IPv4 address or IPv6 /64 may have in progress before its own silent ones are ended for its newcomers. */
  maxHandshakesPerSource: number;
  /** Milliseconds after which a connection that sent nothing is closed. */
  firstByteTimeout: number;
  /** Bytes that all handshakes in progress may hold together. */
  maxHandshakeBytes: number;
  /** Bytes that the send queues of one shard may hold together. */
  maxQueueBytes: number;
  /** One array per shard, on shared memory, `counterNames().length` long. */
  counters: BigInt64Array[];
  /** `shards * shards` rings on shared memory, index `from * shards + to`; the diagonal is unused and may be null. */
  rings: (Uint8Array | null)[];
  /** Called on the thread that made the relay, with at least one event. */
  onEvents: (events: RelayEvent[]) => void;
}

/** What shards tell the control plane. */
export type RelayEvent =
  /** A client is in its shard's tables. Sent while `setClientEvents` is on. */
  | {
      type: 'connected';
      id: ConnectionId;
      key: Uint8Array;
      remote: string;
      mesh: boolean;
      prober: boolean;
      notIdeal: boolean;
    }
  /** A client's connection ended. Sent for every client adopted with `notify`, and for all while `logClients` or `setClientEvents` is on. */
  | {
      type: 'closed';
      id: ConnectionId;
      key: Uint8Array;
      /** `ip:port`, empty for a socketpair without a known address. */
      remote: string;
      /** Name of the reason, as in the counters `closed.*`. */
      reason: string;
      /** The reason in words. */
      text: string;
      notify: boolean;
      /** Keys that were known over a mesh link; 0 for clients. */
      peers: number;
    }
  /** A packet for a key that has only JavaScript forwarders. */
  | { type: 'forward'; source: Uint8Array; destination: Uint8Array; packet: Buffer }
  /** Answer to `consistencyCheck`, one per shard. */
  | { type: 'check'; ticket: number; shard: number; violations: string[] }
  /** Part of the answer to `traffic`, from one shard; `last`: its answer is complete. */
  | {
      type: 'traffic';
      ticket: number;
      /** Records of 64 bytes, little-endian: connection id, bytes sent, bytes received, unique senders, key. */
      records: Buffer;
      last: boolean;
    }
  /** Answer to `clients`, one per shard that was asked. */
  | {
      type: 'clients';
      ticket: number;
      shard: number;
      /** Records in the order of the query, at most `limit`; see `server/client_records.ts`. */
      records: Buffer;
      /** Connections that match, wherever the page begins. */
      connections: number;
      /** Keys of those. */
      keys: number;
      /** Those of the connections that lie behind the beginning of the page. */
      behind: number;
    }
  /** A client's label found no number, as there are too many; sent once. */
  | { type: 'labels-full'; label: string }
  /** A handshake failed. Sent for connections that came from `importFd` or `socketPair`, and for all when `logClients` is on. */
  | {
      type: 'failed';
      id: ConnectionId;
      remote: string;
      /** Index that the handshake thread gave. */
      failure: number;
      text: string;
      notify: boolean;
    }
  /** A mesh link has been up for about a second: how many keys it brought. */
  | { type: 'link'; id: ConnectionId; peers: number }
  /** A connection without a DERP upgrade: it waits for `detach`, all its bytes still buffered. */
  | {
      type: 'http';
      id: ConnectionId;
      remote: string;
      /** `tag` of the listener. */
      listener: number;
      /** A `RefusalCode`: what is wrong with the request; empty for a good one. */
      malformed: string;
    }
  /** A handshake waits for the certificate of a name that is expected. */
  | { type: 'wanted'; listener: number; name: string };

/** What a connection in its handshake was ended for, as `Eviction` of the native side: names of counters. */
export const EVICTIONS = ['handshakes', 'handshake_bytes', 'source_share', 'file_descriptors'] as const;

/** How a finished handshake enters its shard. */
export interface AdoptOptions {
  /** The mesh key that the client offered, 64 lower-case hexadecimal characters. */
  meshKey: string | undefined;
  /** Whether the client says that it is a prober. */
  prober: boolean;
  /** Protocol version that the client says it has. */
  version: number;
  /** Its free text; beyond 32 bytes it is cut off. */
  appName: string;
  /** Whether the client came with an `Ideal-Node` header. */
  notIdeal: boolean;
  /** Name under which admission counts the client; undefined: none. */
  label?: string | undefined;
  /** Bytes per second that admission allows the client to send; undefined: no separate limit. */
  receiveRate?: number | undefined;
}

/** Which clients are asked for, in which order; see `native/core/client_listing.h`. */
export interface NativeClientQuery {
  filter: number;
  /** 32 bytes, for the filter of a key. */
  key?: Uint8Array;
  /** 16 bytes, IPv4 within IPv6, for the filter of a prefix. */
  prefix?: Uint8Array;
  prefixBits?: number;
  /** Names of which a client has one; empty: any name. */
  apps: readonly string[];
  sort: number;
  descending: boolean;
  /** 1 to 1,000. */
  limit: number;
  /** A record behind which the page begins. */
  after?: Uint8Array;
  /** Whether the number in `after` counts; if not, the page begins behind all connections with its value. */
  afterHasNumber?: boolean;
  /** Whether the port in `after` counts. */
  afterHasPort?: boolean;
}

/** How a handshake begins. */
export const HandshakeStart = {
  /** The HTTP request comes first. */
  REQUEST: 0,
  /** The request was read elsewhere: send 101, then ServerKey. */
  ANSWER: 1,
  /** Begin with ServerKey. */
  DERP: 2,
  /** No connection: the thread ends. */
  END: 3,
} as const;

export interface NativeListenOptions {
  /** Numeric address; `::` listens on both families. */
  host: string;
  /** 0 takes a free port. */
  port: number;
  /** Idle time before TCP keepalive probes, milliseconds. */
  tcpKeepaliveTime: number;
  /** TCP_USER_TIMEOUT, milliseconds. */
  tcpUserTimeout: number;
  /** A listening TCP socket in place of host and port; belongs to the listener from then on. */
  fd?: number;
  /** Comes with `http` events of connections that this listener accepted. */
  tag: number;
  /** Connections begin with a TLS handshake. Default: they are plain. */
  tls?: NativeTlsServer;
  /** Address ranges of those that may send a PROXY header first. */
  proxies: readonly string[];
}

/** Certificates of listeners, for any thread's handshakes. Names are compared in lower case. Errors have the code `ERR_DERP_CERTIFICATE`. */
export interface NativeTlsServer {
  /** PEM texts of certificate chains and keys in turn. The name `*` serves clients that no other name fits. */
  set(name: string, certificates: string[]): void;
  remove(name: string): void;
  /** For handshakes with the protocol `acme-tls/1`. */
  setChallenge(name: string, chain: string, key: string): void;
  removeChallenge(name: string): void;
  /** Handshakes for `name` wait for its certificate; the first causes a `wanted` event. `*`: for every address of this machine. */
  expect(name: string): void;
  unexpect(name: string): void;
  /** DER of a certificate that the relay of that number sends behind every chain. */
  setMeta(relayId: number, der: Uint8Array): void;
  removeMeta(relayId: number): void;
}

/** The client's role. */
export interface NativeTlsClient {
  /**
   * @param serverName - sent as SNI; empty: none
   * @param verifyHost - name or address that the certificate must be for; undefined: nothing is verified, the caller does it
   */
  connect(serverName: string, verifyHost: string | undefined): NativeTlsSession;
}

/** One TLS connection without its socket. Every method may add to the output. Errors have the code `tls`; after one there may be an alert to send. */
export interface NativeTlsSession {
  readonly established: boolean;
  /** Whether the other side said that it sends nothing more. */
  readonly ended: boolean;
  /** `1.2` or `1.3`, empty until established. */
  readonly version: string;
  /** Goes on with the handshake; whether it is done. */
  handshake(): boolean;
  /** Opens what came from the network; incomplete records are kept. Goes on with the handshake too. */
  receive(bytes: Uint8Array): Buffer;
  /** Seals plaintext; only once established. */
  send(bytes: Uint8Array): void;
  /** What must be sent to the network now. */
  takeOutput(): Buffer;
  /** Says that nothing more will be sent. */
  shutdown(): void;
  /** DER, the leaf first; of the client's role. */
  peerCertificates(): Buffer[];
}

export interface NativeListener {
  /** Port that is listened on. */
  readonly port: number;
  /** Stops listening; idempotent. */
  close(): void;
  /** `ip:port`; of an inherited socket what it is bound to. */
  readonly address: string;
}

/** The shared state of one relay; lives on the thread that made it. */
export interface NativeRelay {
  /** Process-wide number that shard and handshake threads find the relay by. */
  readonly id: number;
  /**
   * Connections go to the handshake threads by themselves. `onTrouble` gets the name of a system error (`EMFILE`) when accepting had to
   * pause. Throws an Error with a `code` such as `EADDRINUSE`.
   */
  listen(options: NativeListenOptions, onTrouble: (code: string) => void): NativeListener;
  /** Takes over a duplicate of `fd`; the caller closes its own. `head` are bytes already read. Throws when `fd` is not a socket.
   * `exempt`: the relay made the connection itself, `maxHandshakes` does not count. `tls`: what `head` was opened by, which is the
   * connection's from then on. */
  importFd(fd: number, head: Uint8Array, remote: string, exempt: boolean, tls?: NativeTlsSession): ConnectionId;
  /** A connected pair: one end becomes a connection, the other is returned as a descriptor that the caller owns. */
  socketPair(head: Uint8Array, remote: string, exempt: boolean): { id: ConnectionId; fd: number };
  /** Gives the connection up: the descriptor is the caller's, with the bytes that were read and not consumed. */
  detach(id: ConnectionId): { fd: number; bytes: Buffer; tls?: NativeTlsSession };
  /** Closes a connection that no shard owns; unknown ids are ignored. */
  discard(id: ConnectionId): void;
  /** Gives a connection from `importFd` or `socketPair` to a handshake thread; a `failed` or `closed` event tells of its end. */
  startHandshake(id: ConnectionId, start: number, notIdeal: boolean): void;
  /** Tells every handshake thread to end, those that are only starting too. */
  endHandshakes(): void;
  /** 64 lower-case hexadecimal characters; empty: no mesh. */
  setMeshKey(key: string): void;
  /** Shard that owns `key`. */
  shardOf(key: Uint8Array): number;
  /** Closes all connections of `key`. */
  closePeer(key: Uint8Array): void;
  /** Says whether JavaScript has at least one forwarder for `key`. */
  setForwarder(key: Uint8Array, present: boolean): void;
  /**
   * Asks each shard to check its invariants; each answers with one `check` event.
   *
   * @param look - false: they only answer
   */
  consistencyCheck(ticket: number, look: boolean): void;
  /** Asks each shard for the traffic of its TCP clients; each answers with `traffic` events. */
  traffic(ticket: number): void;
  /** Asks each shard, or the owner of the key that is asked for, for its clients; each answers with one `clients` event. */
  clients(ticket: number, query: NativeClientQuery): void;
  /** Whether `closed` and `failed` events are wanted for every connection, for the log. */
  setLogClients(on: boolean): void;
  /** Whether `connected` and `closed` events are wanted for every client, for listeners. */
  setClientEvents(on: boolean): void;
  /** `connected` and `closed` events since start that found no room, since the control plane was behind. */
  readonly lostEvents: number;
  /**
   * Hands a connection to another relay of the region, on which we are the client and past the handshake, to the shard that owns
   * `key`, that relay's public key. From then on the link is native: presence that it brings becomes forwarders, packets go over it,
   * pings are answered; 120 s of silence or 5 s without being able to write end it, which a `closed` event tells.
   * `firstOutput` (whole frames) is written first. The id must come from `importFd` or `socketPair`.
   */
  adoptLink(id: ConnectionId, key: Uint8Array, firstOutput: Uint8Array): void;
  /** Ends a link; a `closed` event tells when it has ended. Unknown ones are ignored. */
  endLink(id: ConnectionId, key: Uint8Array): void;
  /** Bytes per second that each client may send, and the burst; 0 = no limit. Every client gets a new full bucket; mesh peers are exempt. */
  setRateLimit(bytesPerSecond: number, burst: number): void;
  /**
   * Sends Restarting to every client, then closes all connections one after another over `milliseconds`.
   * @param reconnectIn - milliseconds that clients are asked to wait before they reconnect
   * @param tryFor - milliseconds that clients are asked to keep trying
   */
  drain(milliseconds: number, reconnectIn: number, tryFor: number): void;
  /** Handshakes in progress now. */
  readonly handshakes: number;
  /** How many connections all listeners accept: `perSecond`, infinite for no limit, and `burst` at once. */
  setAcceptLimit(perSecond: number, burst: number): void;
  /** Whether a listener of JavaScript's may accept one more connection. */
  takeAccept(): boolean;
  /** Connections refused because of the limit, since start. */
  readonly refusedByLimit: number;
  /** Connections refused because of `maxHandshakes`, since start. */
  readonly refused: number;
  /** Connections refused because of `maxHandshakeBytes`, since start. */
  readonly refusedBytes: number;
  /** Connections ended since start to make room, by the order of {@link EVICTIONS}. */
  readonly evicted: number[];
  /** Connections closed since start as they had sent nothing. */
  readonly mute: number;
  /** Connections that no handshake thread has taken up yet. */
  readonly waitingHandshakes: number;
  /** Upgrades to DERP since start, whatever became of them. */
  readonly accepts: number;
  /**
   * Since start: connections that listeners with TLS accepted and rejected, and upgrades to DERP over TLS 1.2 and 1.3. Now: those upgrades
   * that no shard has as clients yet.
   */
  readonly tlsCounts: Record<'accepted' | 'rejected' | 'upgrades12' | 'upgrades13' | 'greeted12' | 'greeted13', number>;
  /** Labels of clients, by the numbers of their counters from 1 on. */
  readonly labels: string[];
  /** Clients since start that are counted under `other` as there were too many labels. */
  readonly labelsRefused: number;
  /** Failed handshakes since start, by the index that the handshake threads gave. */
  readonly failures: number[];
  /** Closes every connection that no shard owns, and lets go of the rings: all shards' threads must have ended. Idempotent. */
  close(): void;
}

/** One shard; lives on its worker's thread. */
export interface NativeShard {
  /** Ends all clients and calls back when no handle is left on this thread's loop. Idempotent. */
  close(done: () => void): void;
}

/** Connections in handshake on one thread of one relay. A connection is here from `open` to `adopt`, `serveHttp` or `fail`. */
export interface NativeHandshakeIo {
  /** Starts to watch the connection on this thread. `timeout` in milliseconds from now ends every pending call. */
  open(id: ConnectionId, timeout: number): void;
  /** Begins the next step of the handshake, with its own deadline. */
  setTimeout(id: ConnectionId, timeout: number): void;
  /**
   * Waits until at least `min` bytes are buffered, at most `max` are read ahead; resolves with a copy of all that is buffered.
   * Rejects with an Error whose `code` is `closed`, `reset`, `timeout`, `budget`, `evicted`, `discarded` or `tls`, whose message then says why.
   */
  read(id: ConnectionId, min: number, max: number): Promise<Buffer>;
  /** Drops the first `count` buffered bytes. */
  consume(id: ConnectionId, count: number): void;
  /** Writes all bytes; same rejections as `read`. */
  write(id: ConnectionId, bytes: Uint8Array): Promise<void>;
  /** Counts an upgrade to DERP; to be called once, before ServerKey is written. */
  upgraded(id: ConnectionId): void;
  /** Rejects, with an Error as `read` does, when the handshake ends by its deadline, its client, or want of room. Never resolves. */
  watchEnd(id: ConnectionId): Promise<never>;
  /** `ip:port` of the client, IPv6 in brackets; empty when it is unknown. */
  remote(id: ConnectionId): string;
  /** The client's address as a trusted proxy named it, `ip:port`. */
  setRemote(id: ConnectionId, remote: string): void;
  /** Whether a client that offers this is a mesh peer. */
  provesMeshKey(meshKey: string): boolean;
  /** Hands the client to the shard that owns `key`; `firstOutput` (whole frames) is what it will read first. False when that ended. */
  adopt(id: ConnectionId, key: Uint8Array, firstOutput: Uint8Array, options: AdoptOptions): boolean;
  /**
   * Gives a connection without a DERP upgrade to the control plane, which gets an `http` event. Text in `malformed` says what is wrong with
   * the request, which is counted as `failure`.
   */
  serveHttp(id: ConnectionId, failure: number, malformed: string): void;
  /** Closes the connection and counts the failure. `report`: a `failed` event in any case. */
  fail(id: ConnectionId, failure: number, report: boolean, text: string): void;
}

/** Writes lines to a descriptor on its own thread; the descriptor never delays callers. */
export interface NativeLineWriter {
  /** Lines lost that no queued notice reports yet. */
  readonly unreported: number;
  /** Lines lost since start. */
  readonly lost: number;
  /** Why lines were lost last (`ENOSPC: no space left on device`); empty when too many waited. */
  readonly lastError: string;
  /** Queues `line`, and in front of it `notice`, which says that `reported` lines were lost; empty: none. Both end in a newline. */
  write(line: string, notice: string, reported: number): void;
  /** Blocks until all is written or lost; false after `timeout` milliseconds. */
  flush(timeout: number): boolean;
}

/** native/stun/server.h */
export interface NativeStunServer {
  /** `ip:port`; empty once it is closed. */
  readonly address: string;
  /** In the order of native/binding/stun_wrap.cc; empty once it is closed. */
  figures(): number[];
  /** Of the last read that failed; empty without one. */
  readonly readError: string;
  /** The first private address in an answer, `ip:port`; empty without one. */
  readonly firstPrivate: string;
  /** Waits for its thread, which ends at once. */
  close(): void;
}

export interface NativeAddon {
  /** @throws the system's error, with its code */
  StunServer: new (
    host: string,
    port: number,
    answersPerSecond: number,
    /** A bound UDP socket in place of host and port; belongs to the server from then on. */
    fd?: number,
  ) => NativeStunServer;
  /** `maxBytes`: text that may wait to be written; lines beyond it are lost. */
  LineWriter: new (
    fd: number,
    maxBytes: number,
  ) => NativeLineWriter;
  Relay: new (config: NativeRelayConfig) => NativeRelay;
  Shard: new (relayId: number, index: number) => NativeShard;
  TlsServer: new () => NativeTlsServer;
  /** `roots`: PEM certificates of trusted roots. */
  TlsClient: new (
    roots: string,
  ) => NativeTlsClient;
  /** `onRequests` gets ids and {@link HandshakeStart}s in turn, one flat array for a batch; those with a request once it begins to come. */
  HandshakeIo: new (
    relayId: number,
    onRequests: (requests: number[]) => void,
  ) => NativeHandshakeIo;
  /** Names of a shard's counters, in their order in the array; documented in native/core/counters.h. */
  counterNames(): string[];
  /** Bytes of a ring's memory that are not its data. */
  readonly ringOverhead: number;
  /** What PROXY header the bytes begin with; see `native/io/proxy_header.h`. `client` is `ip:port` with the state `address`. */
  readProxyHeader(bytes: Uint8Array): {
    state: 'none' | 'more' | 'bad' | 'local' | 'address';
    size: number;
    client: string;
  };
  /** Lowers the calling thread's scheduling priority (a nice value). */
  setThreadNice(nice: number): void;
  /** Names the calling thread, as `top -H` shows it; Linux keeps 15 bytes. */
  setThreadName(name: string): void;
  /**
   * Sends a datagram to a Unix socket; `@` begins an abstract name.
   * @throws the system's error, with its code
   */
  notifyManager(path: string, text: string): void;
  /**
   * What a descriptor is.
   * @throws the system's error, with its code
   */
  describeSocket(fd: number): { kind: 'tcp' | 'udp' | 'other'; address: string };
}

const require = createRequire(import.meta.url);

/** The loaded addon. */
export const native: NativeAddon = load();

function load(): NativeAddon {
  const candidates = [
    '../build/Release/derplane.node',
    `../prebuilds/${process.platform}-${process.arch}/derplane.node`,
  ];
  const failures: unknown[] = [];
  for (const path of candidates) {
    try {
      return require(path) as NativeAddon;
    } catch (error) {
      // A candidate that is not there says less than one that does not load.
      const isThere = existsSync(new URL(path, import.meta.url));
      if (isThere) failures.unshift(error);
      else failures.push(error);
    }
  }
  throw addonError(failures[0] as Error, existsSync(new URL(candidates[0]!, import.meta.url)));
}

/** @param isBuilt - whether an addon was built here, which does not load */
function addonError(cause: Error, isBuilt: boolean): DerpError {
  const folder = fileURLToPath(new URL('..', import.meta.url));
  const platform = `${process.platform}-${process.arch}, Node ${process.version}`;
  const reason = cause.message.split('\n')[0]!;
  const what = isBuilt
    ? `the native addon does not load (${platform}): ${reason}`
    : `there is no native addon for ${platform}`;
  const node = 'was it built for another Node, libc or machine? ';
  // node-gyp comes with the sources' own development packages, not with the package.
  const command = `cd ${JSON.stringify(folder)} && npm install --include=dev && npm run build:native`;
  return new DerpError(
    'ERR_DERP_ADDON',
    `derplane: ${what}; ${isBuilt ? node : ''}build it: ${command} (needs a C++20 compiler, make and python3)`,
    { cause },
  );
}
