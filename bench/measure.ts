/** One run of one scenario against one peer: fresh relay, fresh load, figures. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { silentClients, talkingClients } from './clients.js';
import { type LoadClient, runLoad, type TrafficResult } from './load.js';
import { runHttp, runPageLoad } from './pages.js';
import type { Peer, RunningRelay } from './peers.js';
import { nextMessage, spawnPinned, stop } from './process.js';
import { median } from './results.js';
import type { ClosedLoop, Connect, Departures, Idle, OpenLoop, Scenario, Silent, Start, Stun } from './scenarios.js';
import type { SilentAttack, SilentReady, SilentResult } from './silent_attack.js';
import { timeStart } from './start.js';
import { runStun } from './stun.js';

export interface Latency {
  /** Microseconds, as all here. */
  p50: number;
  p99: number;
  p999: number;
}

/** What one run found. */
export interface Figures {
  /** CPU microseconds of the relay per packet, connect, request, departure or STUN answer; for idle clients resident bytes per client; for a start milliseconds. */
  cost: number;
  /** Packets, connects, requests or answers per second. */
  perSecond?: number;
  gigabitsPerSecond?: number;
  latency?: Latency;
  /** Packets, or STUN requests, that were sent and did not arrive. */
  lost?: number;
  /** Share of the measured time in which the relay's, and the load's, threads ran; 1 is one core. */
  relayShare?: number;
  loadShare?: number;
  /** Delivered per second / what the relay can carry. */
  goodput?: number;
  /** Open loop: share of the packets that were due and not sent, since the relay did not read ... */
  blocked?: number;
  /** ... or since the generator was too slow. */
  behind?: number;
  /** Idle: resident bytes without clients; and per client over the last two thirds of them, without what starting costs. */
  residentBase?: number;
  marginalBytes?: number;
  /** Resident bytes of the relay at the end of traffic. */
  resident?: number;
  /** What strangers with silent connections did to newcomers, and to packets. */
  silent?: SilentFigures;
  /** What requests for pages did to packets. */
  pages?: PageFigures;
  /** Departures: microseconds of the longest single step. */
  longestStep?: number;
  /** What a relay must never do, and how often it did. */
  faults: string[];
}

export interface SilentFigures {
  newcomers: number;
  /** Share of them. */
  failed: number;
  /** Milliseconds until a newcomer was in, median. */
  entry: number;
  /** Latency of packets without the strangers, and how much higher its p99 was with them. */
  quiet: Latency;
  p99Ratio: number;
  reopenedPerSecond: number;
}

export interface PageFigures {
  perSecond: number;
  /** Latency of packets without requests, and how much higher its p99 was with them. */
  quiet: Latency;
  p99Ratio: number;
}

export interface MeasureOptions {
  relayCores: string;
  loadCores: string;
  /** Measured seconds of a traffic run. */
  seconds: number;
  /** Packets per second that each peer carries in an open loop, found once per bench; filled here. */
  capacities: Map<string, number>;
  /** File for `perf record`; no profile without. */
  profile?: string;
}

const attackEntry = fileURLToPath(new URL('silent_attack.js', import.meta.url));
export const WARMUP = 700;
const CONNECT_TIMEOUT = 60_000;
const CONNECT_CONCURRENCY = 64;
const IDLE_SETTLE = 2_000;
/** Of runs with silent strangers: packets per second, about a tenth of what a relay carries; milliseconds, for 500 newcomers. */
const SILENT = { rate: 20_000, duration: 5_000, readyTimeout: 60_000 };
/** The search for what a relay carries: rates grow until it twice delivers less than this share of them. */
const RAMP = { start: 50_000, growth: 1.4, carried: 0.95, maximum: 20_000_000, warmup: 300, duration: 500 };

export async function measure(scenario: Scenario, peer: Peer, options: MeasureOptions): Promise<Figures> {
  if (scenario.kind === 'start') return runStart(scenario, peer, options);
  if (scenario.kind === 'departures') return runDepartures(scenario, options);
  if (scenario.kind === 'stun') return runStun(scenario, peer, options);
  const relay = await peer.start({
    shards: scenario.shards,
    cores: options.relayCores,
    tls: scenario.tls === true,
    mesh: 'mesh' in scenario && scenario.mesh !== undefined,
  });
  const profiler = options.profile === undefined ? undefined : startProfiler(relay.pid, options.profile);
  try {
    // Another commit of derplane is offered the rates of the working tree, so that the same is measured.
    const figures = await run(scenario, peer.reference ? 'derplane' : peer.name, relay, options);
    // The program of another commit may not know the question.
    const lost = peer.reference ? 0 : ((await relay.lostWakes?.()) ?? 0);
    if (lost > 0) figures.faults.push(`${lost} wake-ups between shards were lost`);
    return figures;
  } finally {
    if (profiler !== undefined) await endProfiler(profiler);
    await relay.stop();
  }
}

function run(
  scenario: Exclude<Scenario, Start | Departures | Stun>,
  peer: string,
  relay: RunningRelay,
  options: MeasureOptions,
): Promise<Figures> {
  switch (scenario.kind) {
    case 'closed':
      return runClosed(scenario, relay, options);
    case 'open':
      return runOpen(scenario, peer, relay, options);
    case 'connect':
      return runConnect(scenario, relay, options);
    case 'idle':
      return runIdle(scenario, relay, options);
    case 'http':
      return runHttp(scenario, relay, options);
    case 'page-load':
      return runPageLoad(scenario, relay, options);
    case 'silent':
      return runSilent(scenario, relay, options);
  }
}

const fleet = (relay: RunningRelay, clients: LoadClient[], concurrency = CONNECT_CONCURRENCY) => ({
  port: relay.port,
  tls: relay.tls,
  relayPid: relay.pid,
  concurrency,
  connectTimeout: CONNECT_TIMEOUT,
  clients,
});

export interface Pace {
  /** Outstanding per sender, when `rate` is 0. */
  window: number;
  /** Packets per second. */
  rate: number;
  /** Milliseconds. */
  warmup: number;
  duration: number;
}

export async function traffic(
  scenario: ClosedLoop | OpenLoop,
  relay: RunningRelay,
  loadCores: string,
  pace: Pace,
): Promise<TrafficResult> {
  const clients = await talkingClients(relay, scenario);
  return runLoad({ mode: 'traffic', ...fleet(relay, clients), ...pace, packetBytes: scenario.packetBytes }, loadCores);
}

async function runClosed(scenario: ClosedLoop, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  const pace = { window: scenario.window, rate: 0, warmup: WARMUP, duration: options.seconds * 1000 };
  return trafficFigures(await traffic(scenario, relay, options.loadCores, pace), scenario.packetBytes);
}

async function runOpen(
  scenario: OpenLoop,
  peer: string,
  relay: RunningRelay,
  options: MeasureOptions,
): Promise<Figures> {
  const capacity = 'shareOfPeak' in scenario.rate ? await capacityOf(scenario, peer, relay, options) : undefined;
  const rate = 'shareOfPeak' in scenario.rate ? capacity! * scenario.rate.shareOfPeak : scenario.rate.packetsPerSecond;
  const pace = { window: 0, rate, warmup: WARMUP, duration: options.seconds * 1000 };
  const result = await traffic(scenario, relay, options.loadCores, pace);
  const due = result.sent + result.blocked + result.behind;
  return {
    ...trafficFigures(result, scenario.packetBytes),
    ...(capacity === undefined ? {} : { goodput: perSecond(result.delivered, result.durationNanos) / capacity }),
    blocked: result.blocked / due,
    behind: result.behind / due,
  };
}

/** Most packets per second that the relay delivered while the offered rate grew; two poor steps in a row end the search. */
async function capacityOf(
  scenario: OpenLoop,
  peer: string,
  relay: RunningRelay,
  options: MeasureOptions,
): Promise<number> {
  const key = [peer, scenario.topology, scenario.clients].join(' ');
  const known = options.capacities.get(key);
  if (known !== undefined) return known;
  let best = 0;
  let poor = 0;
  for (let rate = RAMP.start; poor < 2 && rate < RAMP.maximum; rate *= RAMP.growth) {
    const pace = { window: 0, rate, warmup: RAMP.warmup, duration: RAMP.duration };
    const result = await traffic(scenario, relay, options.loadCores, pace);
    const delivered = perSecond(result.delivered, result.durationNanos);
    best = Math.max(best, delivered);
    poor = delivered < rate * RAMP.carried ? poor + 1 : 0;
  }
  options.capacities.set(key, best);
  return best;
}

export function trafficFigures(result: TrafficResult, packetBytes: number): Figures {
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
  const { concurrency, warmup } = scenario;
  const clients = silentClients(relay, warmup + scenario.clients);
  const result = await runLoad({ mode: 'connect', ...fleet(relay, clients, concurrency), warmup }, options.loadCores);
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

async function runStart(scenario: Start, peer: Peer, options: MeasureOptions): Promise<Figures> {
  const times: number[] = [];
  while (times.length < scenario.starts) {
    times.push(await timeStart(peer.command!, options.relayCores, scenario.tls === true));
  }
  return { cost: median(times)!, faults: [] };
}

async function runDepartures(scenario: Departures, options: MeasureOptions): Promise<Figures> {
  const { clients, receivers, departures } = scenario;
  const result = await runLoad({ mode: 'departures', clients, receivers, departures }, options.relayCores);
  return {
    cost: result.cpuNanos / 1000 / departures,
    longestStep: result.longestNanos / 1000,
    faults: [],
  };
}

async function runSilent(scenario: Silent, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  const { name, clients, shards, connections, addresses, stop: where } = scenario;
  const packets: OpenLoop = {
    ...{ kind: 'open', name, clients, shards, packetBytes: 1280, topology: 'pairs', placement: 'any' },
    rate: { packetsPerSecond: SILENT.rate },
  };
  const pace = { window: 0, rate: SILENT.rate, warmup: WARMUP, duration: SILENT.duration };
  const quiet = await traffic(packets, relay, options.loadCores, pace);
  const attack: SilentAttack = {
    ...{ port: relay.port, tls: relay.tls, publicKey: relay.publicKey.toString('hex') },
    ...{ connections, addresses, stop: where },
  };
  // The packets' load must not wait for the strangers, who share its core.
  const args = ['-n', '10', process.execPath, attackEntry, JSON.stringify(attack)];
  const strangers = spawnPinned(options.loadCores, 'nice', args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  try {
    await nextMessage<SilentReady>(strangers, 'silent strangers', SILENT.readyTimeout);
    const result = await traffic(packets, relay, options.loadCores, pace);
    const answer = nextMessage<SilentResult>(strangers, 'silent strangers', SILENT.readyTimeout);
    strangers.send('stop');
    const { newcomers, failed, entry, reopened } = await answer;
    const [calm, latency] = [micros(quiet.latencyNanos), micros(result.latencyNanos)];
    return {
      ...trafficFigures(result, packets.packetBytes),
      silent: {
        ...{ newcomers, failed: failed / newcomers, entry, quiet: calm, p99Ratio: latency.p99 / calm.p99 },
        reopenedPerSecond: perSecond(reopened, result.durationNanos),
      },
    };
  } finally {
    await stop(strangers);
  }
}

export const perSecond = (count: number, nanos: number) => (count * 1e9) / nanos;

export const micros = (latency: { p50: number; p99: number; p999: number }): Latency => ({
  p50: latency.p50 / 1000,
  p99: latency.p99 / 1000,
  p999: latency.p999 / 1000,
});

export const shares = (result: { durationNanos: number; relayCpuNanos: number; loadCpuNanos: number }) => ({
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
