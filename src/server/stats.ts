/** The relay's figures, as the reference's expvar `derp` has them: `counter_` and `gauge_` before a name give its type. */
import { native } from '../native.js';

/** A figure, or figures by label. */
export type Stats = { [name: string]: number | Stats };

/** Gauges of shards; what is not here and not a total counts events. */
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
]);

const NAMES = native.counterNames();

/** Name of a shard's counter in {@link Stats}: a path. */
function pathOf(name: string): string[] {
  if (GAUGES.has(name)) return [`gauge_${name}`];
  if (name === 'total_dup_client_conns') return ['counter_total_dup_client_conns'];
  if (name === 'packets_received_disco') return ['counter_packets_received_kind', 'disco'];
  if (name === 'packets_received_other') return ['counter_packets_received_kind', 'other'];
  return name.split('.');
}

/** Sums the shards' counters; reading them needs no lock, so figures of one moment may differ by packets in flight. */
export function sumCounters(shards: readonly BigInt64Array[]): Stats {
  const stats: Stats = {};
  NAMES.forEach((name, index) => {
    const sum = shards.reduce((total, counters) => total + Number(Atomics.load(counters, index)), 0);
    const path = pathOf(name);
    let at = stats;
    for (const part of path.slice(0, -1)) {
      at[part] ??= {};
      at = at[part] as Stats;
    }
    at[path.at(-1)!] = sum;
  });
  stats['gauge_clients_remote'] = Number(stats['gauge_clients_total']) - Number(stats['gauge_clients_local']);
  return stats;
}
