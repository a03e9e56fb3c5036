/** The lag of the main thread's event loop: pages, mesh links and all else on that thread wait at least that long. */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';

/** Milliseconds between two samples; each wakes the thread. */
const SAMPLING_INTERVAL = 50;

/** Seconds. */
export interface EventLoopLag {
  min: number;
  max: number;
  mean: number;
  stddev: number;
  p50: number;
  p90: number;
  p99: number;
}

let samples: IntervalHistogram | undefined;

/** Starts sampling at the first call; the process has one sampler. */
export function sampleEventLoop(): IntervalHistogram {
  if (samples === undefined) {
    samples = monitorEventLoopDelay({ resolution: SAMPLING_INTERVAL });
    samples.enable();
  }
  return samples;
}

/** The lag since the last call; zeros without a sample. Node records the time between samples, so the interval is subtracted. */
export function takeEventLoopLag(): EventLoopLag {
  const found = sampleEventLoop();
  const lag = (nanoseconds: number) =>
    found.count === 0 ? 0 : Math.max(0, nanoseconds / 1e9 - SAMPLING_INTERVAL / 1e3);
  const taken = {
    min: lag(found.min),
    max: lag(found.max),
    mean: lag(found.mean),
    stddev: found.count === 0 ? 0 : found.stddev / 1e9,
    p50: lag(found.percentile(50)),
    p90: lag(found.percentile(90)),
    p99: lag(found.percentile(99)),
  };
  found.reset();
  return taken;
}
