/** Metrics of the process and of Node; the former bear the names that every Prometheus client gives them. */
import { readFileSync } from 'node:fs';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { fileDescriptors } from '../server/process_stats.js';

/** Milliseconds between two looks at how late the main thread's event loop is; each look wakes it. */
const EVENT_LOOP_PRECISION = 50;

/**
 * Of prom-client's own: the first lists all descriptors, which takes milliseconds where there are many; the others ask Node for objects
 * that hardly exist, since connections are native.
 */
const LEFT_OUT = [
  'process_open_fds',
  'nodejs_active_handles',
  'nodejs_active_handles_total',
  'nodejs_active_requests',
  'nodejs_active_requests_total',
  'nodejs_active_resources',
  'nodejs_active_resources_total',
];

/** What /proc says for no limit, as a number of bytes. */
const UNLIMITED = 2 ** 64;

let registry: Registry | undefined;

/** The process has one, made when first asked for: it watches the event loop and garbage collection from then on. */
export function processRegistry(): Registry {
  registry ??= makeRegistry();
  return registry;
}

function makeRegistry(): Registry {
  const made = new Registry();
  collectDefaultMetrics({ register: made, eventLoopMonitoringPrecision: EVENT_LOOP_PRECISION });
  for (const name of LEFT_OUT) made.removeSingleMetric(name);
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

/** A figure of the kernel's IP layer: a line of names, and below it a line of values. */
function octets(name: string): number {
  const [names, values] = readFileSync('/proc/self/net/netstat', 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('IpExt:'))
    .map((line) => line.split(' '));
  return Number(values?.[names?.indexOf(name) ?? -1] ?? 0);
}
