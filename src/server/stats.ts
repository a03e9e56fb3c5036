/** The relay's metrics, as derper's expvar `derp` has them: `counter_` and `gauge_` before a name give its type. */
import { native } from '../native.js';

/** A figure, or figures by label. */
export type Stats = { [name: string]: number | Stats };

/** Gauges of shards; everything else, except maps with a prefix, is a counter. */
const GAUGES = new Set([
  'clients_local',
  'clients_total',
  'current_connections',
  'current_dup_client_conns',
  'current_dup_client_keys',
  'current_home_connections',
  'current_notideal_connections',
  'held_bytes',
  'queue_bytes',
  'watchers',
]);

/** Counters with a type prefix in derper. */
const PREFIXED = new Set(['total_dup_client_conns', 'tcp_rtt']);

const HISTOGRAMS = ['buffered_write_frames', 'mesh_update_batch_size', 'mesh_update_loop_count'];

/** Metrics that exist per shard; the rest is about the relay as a whole. */
const OF_SHARDS = [
  'packets_received',
  'bytes_received',
  'packets_sent',
  'bytes_sent',
  'ring_packets_in',
  'ring_packets_out',
  'ring_full',
  'crowd_pauses',
  'senders_forgotten',
  'ring_wakes',
  'lost_wakes',
  'turns',
  'reads',
  'writes',
  'current_connections',
  'queue_bytes',
  'held_bytes',
];

/** Clients by TLS version; requests that pages answer are added where TLS is served. */
export const TLS_ACTIVE = 'gauge_derper_tls_active_version';

const AVERAGE = 'average_queue_duration_ns';

const NAMES = native.counterNames();
const INDEX = new Map(NAMES.map((name, index) => [name, index]));
const PATHS = NAMES.map(pathOf);

/** Place of a shard's counter in {@link Stats}. */
function pathOf(name: string): string[] {
  if (name.startsWith('packets_received_'))
    return ['counter_packets_received_kind', name.slice('packets_received_'.length)];
  const [first, ...labels] = name.split('.') as [string, ...string[]];
  if (name === 'tls12_connections') return [TLS_ACTIVE, '1.2'];
  if (name === 'tls13_connections') return [TLS_ACTIVE, '1.3'];
  if (GAUGES.has(first)) return [`gauge_${first}`, ...labels];
  if (PREFIXED.has(first)) return [`counter_${first}`, ...labels];
  if (HISTOGRAMS.includes(first)) return [`counter_${first}`, labels.at(-1)!];
  return [first, ...labels];
}

/** Sums the shards' counters; reading takes no lock, so values may differ by packets in flight. */
export function sumCounters(shards: readonly BigInt64Array[]): Stats {
  const stats: Stats = {};
  NAMES.forEach((name, index) => {
    if (name === AVERAGE || name.startsWith('label.')) return; // of labels: see labels.ts
    const sum = shards.reduce((total, counters) => total + Number(Atomics.load(counters, index)), 0);
    const path = PATHS[index]!;
    let at = stats;
    for (const part of path.slice(0, -1)) {
      at[part] ??= {};
      at = at[part] as Stats;
    }
    at[path.at(-1)!] = sum;
  });
  for (const name of HISTOGRAMS) stats[`counter_${name}`] = cumulative(stats[`counter_${name}`] as Stats);
  stats['average_queue_duration_ms'] = averageQueueDuration(shards);
  stats['gauge_clients_remote'] = Number(stats['gauge_clients_total']) - Number(stats['gauge_clients_local']);
  return stats;
}

/** Figures of each shard, by name. */
export function shardStats(shards: readonly BigInt64Array[]): Stats[] {
  return shards.map((counters) =>
    Object.fromEntries(OF_SHARDS.map((name) => [GAUGES.has(name) ? `gauge_${name}` : name, read(counters, name)])),
  );
}

/** Of buckets that hold their own values, buckets that hold all values up to their bound, with `sum` and `count`. */
function cumulative(buckets: Stats): Stats {
  const result: Stats = {};
  let count = 0;
  const bounds = Object.keys(buckets).filter((name) => name !== 'sum');
  for (const bound of bounds.sort((a, b) => boundOf(a) - boundOf(b))) {
    count += buckets[bound] as number;
    result[bound] = count;
  }
  return { ...result, sum: buckets['sum']!, count };
}

function boundOf(name: string): number {
  return name === '+Inf' ? Number.POSITIVE_INFINITY : Number(name);
}

/** Milliseconds. Each shard averages over its own packets; the relay's figure is the mean of the shards that sent any. */
function averageQueueDuration(shards: readonly BigInt64Array[]): number {
  const busy = shards.filter((counters) => read(counters, 'packets_sent') + read(counters, AVERAGE) > 0);
  const sum = busy.reduce((total, counters) => total + read(counters, AVERAGE), 0);
  return busy.length === 0 ? 0 : sum / busy.length / 1e6;
}

function read(counters: BigInt64Array, name: string): number {
  return Number(Atomics.load(counters, INDEX.get(name)!));
}
