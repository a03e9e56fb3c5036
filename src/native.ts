/**
 * The addon, typed. Everything below runs in C++ (`native/binding`); this file only finds the binary and says what it offers.
 *
 * A connection is known to JavaScript by a number, its `ConnectionId`: ids are process-wide, so a connection crosses threads as a
 * number. An id is valid from accept (or import) until the connection is adopted, detached or discarded; ids are never reused.
 */
import { createRequire } from 'node:module';

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
  /** Handshakes that may be in progress at once; further connections are refused and counted. */
  maxHandshakes: number;
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
  /** A client's connection ended. Sent for every client adopted with `notify`, and for all when `logClients` is on. */
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
    }
  /** A packet for a key that has only JavaScript forwarders. */
  | { type: 'forward'; source: Uint8Array; destination: Uint8Array; packet: Buffer }
  /** Answer to `consistencyCheck`, one per shard. */
  | { type: 'check'; ticket: number; shard: number; violations: string[] };

/** How a finished handshake enters its shard. */
export interface AdoptOptions {
  /** The client's public key, 32 bytes, not all zero. */
  key: Uint8Array;
  /** Bytes that the client must read first: the sealed ServerInfo frame. */
  firstOutput: Uint8Array;
  /** Whether the client proved the mesh key. */
  mesh: boolean;
  /** Whether the client says that it is a prober. */
  prober: boolean;
  /** Whether the client came with an `Ideal-Node` header. */
  notIdeal: boolean;
  /** Whether a `closed` event is wanted. */
  notify: boolean;
}

export interface NativeListenOptions {
  /** Numeric address; `::` listens on both families. */
  host: string;
  /** 0 takes a free port. */
  port: number;
  /** Idle time before TCP keepalive probes, milliseconds. */
  tcpKeepaliveTime: number;
  /** TCP_USER_TIMEOUT, milliseconds. */
  tcpUserTimeout: number;
}

export interface NativeListener {
  /** Port that is listened on. */
  readonly port: number;
  /** Stops listening; idempotent. */
  close(): void;
}

/** The shared state of one relay; lives on the thread that made it. */
export interface NativeRelay {
  /** Process-wide number that shard and handshake threads find the relay by. */
  readonly id: number;
  /** Throws an Error with a `code` such as `EADDRINUSE`. `onAccept` gets the ids of a batch of accepted connections, and
   * the name of the system error (`EMFILE`) when accepting had to pause. */
  listen(options: NativeListenOptions, onAccept: (ids: ConnectionId[], trouble?: string) => void): NativeListener;
  /** Takes over a duplicate of `fd`; the caller closes its own. `head` are bytes already read. Throws when `fd` is no socket. */
  importFd(fd: number, head: Uint8Array, remote: string): ConnectionId;
  /** A connected pair: one end becomes a connection, the other is returned as a descriptor that the caller owns. */
  socketPair(head: Uint8Array, remote: string): { id: ConnectionId; fd: number };
  /** Gives the connection up: the descriptor is the caller's, with the bytes that were read and not consumed. */
  detach(id: ConnectionId): { fd: number; bytes: Buffer };
  /** Closes a connection that no shard owns; unknown ids are ignored. */
  discard(id: ConnectionId): void;
  /** `ip:port` of the peer, IPv4 never as v4-in-v6; `[ip]:port` for IPv6. */
  remoteAddress(id: ConnectionId): string;
  /** Hands the connection to the shard that owns `key`. The id is invalid afterwards, but `closed` events carry it. */
  adopt(id: ConnectionId, options: AdoptOptions): void;
  /** Shard that owns `key`. */
  shardOf(key: Uint8Array): number;
  /** Closes all connections of `key`. */
  closePeer(key: Uint8Array): void;
  /** Says whether JavaScript has at least one forwarder for `key`. */
  setForwarder(key: Uint8Array, present: boolean): void;
  /** Delivers a packet that JavaScript received for a local client. */
  deliver(source: Uint8Array, destination: Uint8Array, packet: Uint8Array): void;
  /** Asks each shard to check its invariants; each answers with one `check` event. */
  consistencyCheck(ticket: number): void;
  /** Whether `closed` events are wanted for every client. */
  setLogClients(on: boolean): void;
  /** Handshakes in progress now. */
  readonly handshakes: number;
  /** Connections refused because of `maxHandshakes` or `maxHandshakeBytes`, since start. */
  readonly refused: number;
  /** Closes every connection that no shard owns, and lets go of the rings: all shards' threads must have ended. Idempotent. */
  close(): void;
}

/** One shard; lives on its worker's thread. */
export interface NativeShard {
  /** Ends all clients and calls back when no handle is left on this thread's loop. Idempotent. */
  close(done: () => void): void;
}

/** Non-blocking I/O for handshakes on one pool thread. One per thread serves all relays of the process. */
export interface NativeHandshakeIo {
  /** Starts to watch the connection on this thread. `timeout` in milliseconds from now ends every pending call. */
  open(id: ConnectionId, timeout: number): void;
  /** Replaces the deadline. */
  setTimeout(id: ConnectionId, timeout: number): void;
  /**
   * Waits until at least `min` bytes are buffered, at most `max` are read ahead; resolves with a copy of all that is buffered.
   * Rejects with an Error whose `code` is `closed`, `reset`, `timeout`, `budget` or `discarded`.
   */
  read(id: ConnectionId, min: number, max: number): Promise<Buffer>;
  /** Drops the first `count` buffered bytes. */
  consume(id: ConnectionId, count: number): void;
  /** Writes all bytes; same rejections as `read`. */
  write(id: ConnectionId, bytes: Uint8Array): Promise<void>;
  /** Stops watching; the connection waits for adopt or detach with the bytes that it has buffered. */
  release(id: ConnectionId): void;
  /** Closes the connection. */
  discard(id: ConnectionId): void;
}

export interface NativeAddon {
  Relay: new (config: NativeRelayConfig) => NativeRelay;
  Shard: new (relayId: number, index: number) => NativeShard;
  HandshakeIo: new () => NativeHandshakeIo;
  /** Names of a shard's counters, in their order in the array; documented in native/core/counters.h. */
  counterNames(): string[];
  /** Bytes of a ring's memory that are not its data. */
  readonly ringOverhead: number;
  /** Lowers the calling thread's scheduling priority (a nice value). */
  setThreadNice(nice: number): void;
}

const require = createRequire(import.meta.url);

/** The loaded addon. */
export const native: NativeAddon = load();

function load(): NativeAddon {
  const candidates = [
    '../build/Release/derplane.node',
    `../prebuilds/${process.platform}-${process.arch}/derplane.node`,
  ];
  const failures: string[] = [];
  for (const path of candidates) {
    try {
      return require(path) as NativeAddon;
    } catch (error) {
      failures.push(`${path}: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  throw new Error(
    `derplane: no native addon for ${process.platform}-${process.arch}; run \`npm run build:native\` in ${new URL('..', import.meta.url).pathname} (needs a C++20 compiler). Tried ${failures.join('; ')}`,
  );
}
