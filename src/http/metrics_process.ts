/** Metrics of the process and of Node. Metrics of the process have the standard names of Prometheus clients. */
import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { fileDescriptors } from '../server/process_stats.js';
import { type EventLoopLag, takeEventLoopLag } from './event_loop_lag.js';

/**
 * Of prom-client's own: CPU time counts from the first scrape there, the event loop's lag includes the sampling interval, and listing all
 * descriptors takes milliseconds where there are many, so these are ours below. The others ask Node for objects that hardly exist, since
 * connections are native.
 */
const LEFT_OUT = [
  'process_cpu_user_seconds_total',
  'process_cpu_system_seconds_total',
  'process_cpu_seconds_total',
  'process_open_fds',
  'nodejs_active_handles',
  'nodejs_active_handles_total',
  'nodejs_active_requests',
  'nodejs_active_requests_total',
  'nodejs_active_resources',
  'nodejs_active_resources_total',
];
const LEFT_OUT_LAG = /^nodejs_eventloop_lag_/;

/** Milliseconds between samples of prom-client's event loop lag, which is unused: it should never wake the thread. */
const NEVER = 2 ** 31 - 1;

/** The value for "no limit" in /proc, in bytes. */
const UNLIMITED = 2 ** 64;

let registry: Registry | undefined;

/** The process has one registry, created on first use. It samples the event loop and observes garbage collection from then on. */
export function processRegistry(): Registry {
  registry ??= makeRegistry();
  return registry;
}

function makeRegistry(): Registry {
  const made = new Registry();
  collectDefaultMetrics({ register: made, eventLoopMonitoringPrecision: NEVER });
  const lags = made.getMetricsAsArray().filter(({ name }) => LEFT_OUT_LAG.test(name));
  for (const name of [...LEFT_OUT, ...lags.map(({ name }) => name)]) made.removeSingleMetric(name);
  registerEventLoopLag(made);
  registerCpuTime(made);
  gauge(made, 'process_open_fds', 'Number of open file descriptors.', fileDescriptors);
  gauge(made, 'process_virtual_memory_max_bytes', 'Maximum amount of virtual memory available in bytes.', memoryLimit);
  counter(made, 'process_network_receive_bytes_total', 'Number of bytes received by the network namespace.', () =>
    octets('InOctets'),
  );
  counter(made, 'process_network_transmit_bytes_total', 'Number of bytes sent by the network namespace.', () =>
    octets('OutOctets'),
  );
  return made;
}

/** By prom-client's names. */
const LAGS: [figure: keyof EventLoopLag, meaning: string][] = [
  ['min', 'Shortest lag'],
  ['max', 'Longest lag'],
  ['mean', 'Mean lag'],
  ['stddev', 'Standard deviation of the lag'],
  ['p50', 'Median lag'],
  ['p90', '90th percentile of the lag'],
  ['p99', '99th percentile of the lag'],
];

function registerEventLoopLag(register: Registry): void {
  // Registered first: its `collect` must run before the other values are read.
  new Gauge({
    name: 'nodejs_eventloop_lag_seconds',
    help: "Time that the main thread's event loop took to come round during this scrape.",
    registers: [register],
    async collect() {
      const lag = takeEventLoopLag();
      for (const [figure, gauge] of gauges) gauge.set(lag[figure]);
      const start = performance.now();
      await setImmediate();
      this.set((performance.now() - start) / 1e3);
    },
  });
  const gauges = LAGS.map(([figure, meaning]) => {
    const name = `nodejs_eventloop_lag_${figure}_seconds`;
    const help = `${meaning} of the main thread's event loop since the last scrape.`;
    return [figure, new Gauge({ name, help, registers: [register] })] as const;
  });
}

/** CPU time of all threads since the process started. */
function registerCpuTime(register: Registry): void {
  const seconds = (read: (usage: NodeJS.CpuUsage) => number) => () => read(process.cpuUsage()) / 1e6;
  counter(
    register,
    'process_cpu_seconds_total',
    'Total user and system CPU time spent in seconds.',
    seconds(({ user, system }) => user + system),
  );
  counter(
    register,
    'process_cpu_user_seconds_total',
    'Total user CPU time spent in seconds.',
    seconds(({ user }) => user),
  );
  counter(
    register,
    'process_cpu_system_seconds_total',
    'Total system CPU time spent in seconds.',
    seconds(({ system }) => system),
  );
}

function gauge(register: Registry, name: string, help: string, read: () => number): void {
  new Gauge({
    name,
    help,
    registers: [register],
    collect() {
      this.set(read());
    },
  });
}

function counter(register: Registry, name: string, help: string, read: () => number): void {
  new Counter({
    name,
    help,
    registers: [register],
    collect() {
      this.reset();
      this.inc(read());
    },
  });
}

function memoryLimit(): number {
  const limit = readFileSync('/proc/self/limits', 'utf8').match(/^Max address space +(\S+)/m)?.[1];
  return limit === undefined || limit === 'unlimited' ? UNLIMITED : Number(limit);
}

/** A counter of the kernel's IP layer: /proc has a line of names, followed by a line of values. */
function octets(name: string): number {
  const [names, values] = readFileSync('/proc/self/net/netstat', 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('IpExt:'))
    .map((line) => line.split(' '));
  return Number(values?.[names?.indexOf(name) ?? -1] ?? 0);
}
