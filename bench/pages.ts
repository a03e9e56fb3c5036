/** Pages: what a request costs, and what requests do to packets. autocannon asks. */
import { type HttpLoad, runLoad } from './load.js';
import {
  type Figures,
  type MeasureOptions,
  micros,
  perSecond,
  shares,
  traffic,
  trafficFigures,
  WARMUP,
} from './measure.js';
import type { RunningRelay } from './peers.js';
import type { Http, OpenLoop, PageLoad } from './scenarios.js';

/** Packets per second, about a tenth of what a relay carries. */
const PACKET_RATE = 20_000;
const PACKET_BYTES = 1280;
/** Of the load that asks for pages: the packets' load, on the same core, must not wait for it. */
const NICENESS = 10;
/** Milliseconds, about 100,000 requests: a relay's code is interpreted at first, as when clients connect. */
const HTTP_WARMUP = 3_000;
/** autocannon counts whole seconds. */
const wholeSeconds = (seconds: number) => Math.max(1, Math.round(seconds)) * 1000;

function httpLoad(
  relay: RunningRelay,
  path: string,
  more: Pick<HttpLoad, 'connections' | 'duration' | 'rate' | 'warmup'>,
): HttpLoad {
  const url = `${relay.tls ? 'https' : 'http'}://127.0.0.1:${relay.port}${path}`;
  return { mode: 'http', relayPid: relay.pid, url, ...more };
}

export async function runHttp(scenario: Http, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  const more = { connections: scenario.clients, warmup: HTTP_WARMUP, duration: wholeSeconds(options.seconds) };
  const result = await runLoad(httpLoad(relay, scenario.path, more), options.loadCores);
  return {
    cost: result.relayCpuNanos / 1000 / result.requests,
    perSecond: perSecond(result.requests, result.durationNanos),
    ...shares(result),
    faults: result.failed === 0 ? [] : [`${result.failed} requests failed`],
  };
}

/** Requests go on from before the packets' warm-up to behind their end. */
export async function runPageLoad(scenario: PageLoad, relay: RunningRelay, options: MeasureOptions): Promise<Figures> {
  const { name, clients, shards, path, connections, requestsPerSecond } = scenario;
  const packets: OpenLoop = {
    ...{ kind: 'open', name, clients, shards, packetBytes: PACKET_BYTES, topology: 'pairs', placement: 'any' },
    rate: { packetsPerSecond: PACKET_RATE },
  };
  const duration = wholeSeconds(options.seconds);
  const pace = { window: 0, rate: PACKET_RATE, warmup: WARMUP, duration };
  const quiet = await traffic(packets, relay, options.loadCores, pace);
  // Connecting and the end of the packets' load take time of their own.
  const requests = { connections, rate: requestsPerSecond, duration: duration + 2 * wholeSeconds(1) };
  const [result, asked] = await Promise.all([
    traffic(packets, relay, options.loadCores, pace),
    runLoad(httpLoad(relay, path, requests), options.loadCores, NICENESS),
  ]);
  const [calm, latency] = [micros(quiet.latencyNanos), micros(result.latencyNanos)];
  const figures = trafficFigures(result, PACKET_BYTES);
  return {
    ...figures,
    pages: {
      perSecond: perSecond(asked.requests, asked.durationNanos),
      quiet: calm,
      p99Ratio: latency.p99 / calm.p99,
    },
    faults: [...figures.faults, ...(asked.failed === 0 ? [] : [`${asked.failed} requests failed`])],
  };
}
