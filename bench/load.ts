/** The load generator, typed: what `bench/native` is asked and what it answers, and how one run gets a process of its own. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { nextMessage, spawnPinned, stop } from './process.js';

/** A client of the generator. */
export interface LoadClient {
  /** Public key, 32 bytes. */
  key: Uint8Array;
  /** What it sends first. */
  hello: Uint8Array;
  /** Indices of the clients that it sends to, each packet to a random one. */
  targets: Uint32Array;
}

interface Fleet {
  /** On 127.0.0.1. */
  port: number;
  tls: boolean;
  relayPid: number;
  /** Handshakes in progress at once. */
  concurrency: number;
  /** Milliseconds for all of them together. */
  connectTimeout: number;
  clients: LoadClient[];
}

/** Times in milliseconds. `rate` in packets per second makes an open loop, 0 a closed one with `window` outstanding per sender. */
export interface TrafficLoad extends Fleet {
  mode: 'traffic';
  window: number;
  rate: number;
  packetBytes: number;
  warmup: number;
  duration: number;
}

export interface ConnectLoad extends Fleet {
  mode: 'connect';
  /** How many of the clients connect before the measurement begins. */
  warmup: number;
}

export interface IdleLoad extends Fleet {
  mode: 'idle';
  /** Milliseconds of rest before each look at the relay's memory. */
  settle: number;
}

/** Driven by autocannon instead of the native generator. */
export interface HttpLoad {
  mode: 'http';
  relayPid: number;
  url: string;
  connections: number;
  /** Requests per second of all connections together. Default: as many as are answered. */
  rate?: number;
  /** Milliseconds of requests before those that are measured. Default: none. */
  warmup?: number;
  /** Milliseconds. */
  duration: number;
}

/** A shard without sockets, in the load's process: `departures` keys leave, each known to `receivers` of the clients. */
export interface DeparturesLoad {
  mode: 'departures';
  clients: number;
  receivers: number;
  departures: number;
}

/** STUN requests from one socket, `window` of them outstanding. */
export interface StunLoad {
  mode: 'stun';
  /** UDP port on 127.0.0.1. */
  port: number;
  relayPid: number;
  window: number;
  /** Milliseconds, as is `duration`. */
  warmup: number;
  duration: number;
}

export type Load = TrafficLoad | ConnectLoad | IdleLoad | HttpLoad | DeparturesLoad | StunLoad;

/** What native/load.h says; all of the measured window only. */
export interface TrafficResult {
  durationNanos: number;
  relayCpuNanos: number;
  loadCpuNanos: number;
  relayResidentBytes: number;
  delivered: number;
  sent: number;
  lost: number;
  late: number;
  misordered: number;
  misdelivered: number;
  wrongSource: number;
  corrupted: number;
  blocked: number;
  behind: number;
  disconnected: number;
  latencyNanos: { p50: number; p99: number; p999: number; max: number };
}

export interface ConnectResult {
  durationNanos: number;
  relayCpuNanos: number;
  loadCpuNanos: number;
}

export interface IdleResult {
  residentBefore: number;
  residentThird: number;
  residentAll: number;
}

export interface HttpResult {
  durationNanos: number;
  relayCpuNanos: number;
  loadCpuNanos: number;
  requests: number;
  failed: number;
}

export interface DeparturesResult {
  /** Of all departures. */
  cpuNanos: number;
  /** Of the longest single step. */
  longestNanos: number;
}

export interface StunResult {
  durationNanos: number;
  relayCpuNanos: number;
  loadCpuNanos: number;
  answers: number;
  /** Datagrams that answer no request that is outstanding. */
  wrong: number;
  /** Requests that were sent again, since no answer came for a while. */
  lost: number;
}

export type LoadResult<L extends Load> = L extends TrafficLoad
  ? TrafficResult
  : L extends ConnectLoad
    ? ConnectResult
    : L extends IdleLoad
      ? IdleResult
      : L extends DeparturesLoad
        ? DeparturesResult
        : L extends StunLoad
          ? StunResult
          : HttpResult;

/** What relays serve: ECDSA P-256, self-signed, for 127.0.0.1. */
export interface BenchCertificate {
  /** PEM. */
  cert: string;
  key: string;
}

/** The native addon. */
export interface LoadAddon {
  run<L extends TrafficLoad | ConnectLoad | IdleLoad | DeparturesLoad | StunLoad>(load: L): Promise<LoadResult<L>>;
  /** Starts the bare forwarder on a free port of 127.0.0.1, plain or TLS; it ends with the process. `failed` only ever rejects. */
  forward(publicKey: Uint8Array, tls?: BenchCertificate): { port: number; failed: Promise<never> };
  makeCertificate(): BenchCertificate;
  /** CPU time of a process's threads, ended ones included; -1 when there is none. */
  cpuNanos(pid: number): number;
}

export const addon = createRequire(import.meta.url)('../../build/Release/derplane_load.node') as LoadAddon;

/** What the load process answers. */
export type LoadAnswer = { result: unknown } | { error: string };

const entry = fileURLToPath(new URL('load_process.js', import.meta.url));
/** Milliseconds for all that is not the measured time: start, connecting, settling. */
const SLACK = 180_000;

/**
 * Runs one load in a process of its own on the given cores.
 *
 * @param niceness - of a load that must not delay another one on these cores
 */
export async function runLoad<L extends Load>(load: L, cores: string, niceness = 0): Promise<LoadResult<L>> {
  const child = spawnPinned(cores, 'nice', ['-n', String(niceness), process.execPath, entry], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  const expected = 'duration' in load ? load.duration : 0;
  try {
    const answer = nextMessage<LoadAnswer>(child, 'load generator', expected + SLACK);
    child.send(load);
    const message = await answer;
    if ('error' in message) throw new Error(`load generator: ${message.error}`);
    return message.result as LoadResult<L>;
  } finally {
    await stop(child);
  }
}
