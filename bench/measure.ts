/** One run of one scenario against one peer: fresh relay, fresh load, figures. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { silentClients, talkingClients } from './clients.js';
import { type LoadClient, runLoad, type TrafficResult } from './load.js';
import type { Peer, RunningRelay } from './peers.js';
import type { ClosedLoop, Connect, Http, Idle, OpenLoop, Scenario } from './scenarios.js';

export interface Latency {
  /** Microseconds, as all here. */
  p50: number;
  p99: number;
  p999: number;
}

/** What one run found. */
export interface Figures {
  /** CPU microseconds of the relay per packet, connect or request; for idle clients resident bytes per client. */
  cost: number;
  /** Packets, connects or requests per second. */
  perSecond?: number;
  gigabitsPerSecond?: number;
  latency?: Latency;
  /** Packets that were sent and did not arrive. */
  lost?: number;
  /** Share of the measured time in which the relay's, and the load's, threads ran; 1 is one core. */
  relayShare?: number;
  loadShare?: number;
  /** Delivered per second / the peak of the same relay process. */
  goodput?: number;
  /** Offered per second / that peak: what the generator managed to send. */
  offered?: number;
  /** Idle: resident bytes without clients; and per client over the last two thirds of them, without what starting costs. */
  residentBase?: number;
  marginalBytes?: number;
  /** Resident bytes of the relay at the end of traffic. */
  resident?: number;
  /** What a relay must never do, and how often it did. */
  faults: string[];
}

export interface MeasureOptions {
  relayCores: string;
  loadCores: string;
  /** Measured seconds of a traffic run. */
  seconds: number;
  /** File for `perf record`; no profile without. */
  profile?: string;
}

const WARMUP = 700;
const CONNECT_TIMEOUT = 60_000;
const CONNECT_CONCURRENCY = 64;
const IDLE_SETTLE = 2_000;
/** Packets outstanding per sender in the closed loop that finds a relay's peak. */
const PEAK_WINDOW = 64;

export async function measure(scenario: Scenario, peer: Peer, options: MeasureOptions): Promise<Figures> {
  const relay = await peer.start(scenario.shards, options.relayCores);
  const profiler = options.profile === undefined ? undefined : startProfiler(relay.pid, options.profile);
  try {
    return await run(scenario, relay, options);
  } finally {
    if (profiler !== undefined) await endProfiler(profiler);
    await relay.stop();
  }
}

function run(scenario: Scenario, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  switch (scenario.kind) {
    case 'closed':
      return runClosed(scenario, relay, options);
    case 'open':
      return runOpen(scenario, relay, options);
    case 'connect':
      return runConnect(scenario, relay, options);
    case 'idle':
      return runIdle(scenario, relay, options);
    case 'http':
      return runHttp(scenario, relay, options);
  }
}

const fleet = (relay: RunningRelay, clients: LoadClient[], concurrency = CONNECT_CONCURRENCY) => ({
  port: relay.port,
  relayPid: relay.pid,
  concurrency,
  connectTimeout: CONNECT_TIMEOUT,
  clients,
});

/** One load with the scenario's clients; a `rate` of 0 is a closed loop. */
async function traffic(
  scenario: ClosedLoop | OpenLoop,
  relay: RunningRelay,
  options: MeasureOptions,
  pace: { window: number; rate: number },
): Promise<TrafficResult> {
  const clients = await talkingClients(relay, scenario.clients, scenario.topology, scenario.placement);
  return runLoad(
    {
      mode: 'traffic',
      ...fleet(relay, clients),
      ...pace,
      packetBytes: scenario.packetBytes,
      warmup: WARMUP,
      duration: options.seconds * 1000,
    },
    options.loadCores,
  );
}

async function runClosed(scenario: ClosedLoop, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  return trafficFigures(
    await traffic(scenario, relay, options, { window: scenario.window, rate: 0 }),
    scenario.packetBytes,
  );
}

async function runOpen(scenario: OpenLoop, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  if ('packetsPerSecond' in scenario.rate) {
    const result = await traffic(scenario, relay, options, { window: 0, rate: scenario.rate.packetsPerSecond });
    return trafficFigures(result, scenario.packetBytes);
  }
  const atPeak = await traffic(scenario, relay, options, { window: PEAK_WINDOW, rate: 0 });
  const peak = perSecond(atPeak.delivered, atPeak.durationNanos);
  const result = await traffic(scenario, relay, options, { window: 0, rate: peak * scenario.rate.shareOfPeak });
  const figures = trafficFigures(result, scenario.packetBytes);
  figures.goodput = figures.perSecond! / peak;
  figures.offered = perSecond(result.sent, result.durationNanos) / peak;
  return figures;
}

function trafficFigures(result: TrafficResult, packetBytes: number): Figures {
  if (result.delivered === 0) throw new Error('no packet arrived in the measured time');
  const rate = perSecond(result.delivered, result.durationNanos);
  return {
    cost: result.relayCpuNanos / 1000 / result.delivered,
    perSecond: rate,
    gigabitsPerSecond: (rate * packetBytes * 8) / 1e9,
    latency: micros(result.latencyNanos),
    lost: result.lost,
    resident: result.relayResidentBytes,
    ...shares(result),
    faults: faultsOf(result),
  };
}

function faultsOf(result: TrafficResult): string[] {
  const { misordered, misdelivered, wrongSource, corrupted, disconnected } = result;
  const counts = {
    'out of order or twice': misordered,
    'to the wrong client': misdelivered,
    'from the wrong key': wrongSource,
    corrupted,
    'clients disconnected': disconnected,
  };
  return Object.entries(counts).flatMap(([what, count]) => (count === 0 ? [] : [`${count} ${what}`]));
}

async function runConnect(scenario: Connect, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  const clients = silentClients(relay, scenario.clients);
  const result = await runLoad({ mode: 'connect', ...fleet(relay, clients, scenario.concurrency) }, options.loadCores);
  return {
    cost: result.relayCpuNanos / 1000 / scenario.clients,
    perSecond: perSecond(scenario.clients, result.durationNanos),
    ...shares(result),
    faults: [],
  };
}

async function runIdle(scenario: Idle, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  const clients = silentClients(relay, scenario.clients);
  const result = await runLoad({ mode: 'idle', ...fleet(relay, clients), settle: IDLE_SETTLE }, options.loadCores);
  const lastTwoThirds = scenario.clients - Math.floor(scenario.clients / 3);
  return {
    cost: (result.residentAll - result.residentBefore) / scenario.clients,
    residentBase: result.residentBefore,
    marginalBytes: (result.residentAll - result.residentThird) / lastTwoThirds,
    faults: [],
  };
}

async function runHttp(scenario: Http, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  const result = await runLoad(
    {
      mode: 'http',
      relayPid: relay.pid,
      url: `http://127.0.0.1:${relay.port}${scenario.path}`,
      connections: scenario.clients,
      duration: Math.max(1, Math.round(options.seconds)) * 1000,
    },
    options.loadCores,
  );
  return {
    cost: result.relayCpuNanos / 1000 / result.requests,
    perSecond: perSecond(result.requests, result.durationNanos),
    latency: micros(result.latencyNanos),
    ...shares(result),
    faults: result.failed === 0 ? [] : [`${result.failed} requests failed`],
  };
}

const perSecond = (count: number, nanos: number) => (count * 1e9) / nanos;

const micros = (latency: { p50: number; p99: number; p999: number }): Latency => ({
  p50: latency.p50 / 1000,
  p99: latency.p99 / 1000,
  p999: latency.p999 / 1000,
});

const shares = (result: { durationNanos: number; relayCpuNanos: number; loadCpuNanos: number }) => ({
  relayShare: result.relayCpuNanos / result.durationNanos,
  loadShare: result.loadCpuNanos / result.durationNanos,
});

function startProfiler(pid: number, file: string): ChildProcess {
  return spawn('perf', ['record', '-F', '999', '-g', '-p', String(pid), '-o', file], { stdio: 'ignore' });
}

async function endProfiler(profiler: ChildProcess): Promise<void> {
  if (profiler.exitCode !== null) throw new Error(`perf record ended early with exit code ${profiler.exitCode}`);
  const ended = once(profiler, 'exit');
  profiler.kill('SIGINT');
  await ended;
}
