/** All figures of a relay: what its shards count, and what is known beside them. */
import { HANDSHAKE_FAILURES } from '../handshake/messages.js';
import { EVICTIONS, type NativeRelay } from '../native.js';
import type { WebSockets } from '../websocket/web_sockets.js';
import type { Forwarders } from './forwarders.js';
import { labelFigures } from './labels.js';
import { fileDescriptors, MEMORY_AT_START } from './process_stats.js';
import { type Stats, sumCounters, TLS_ACTIVE } from './stats.js';
import type { ServerStats } from './stats_types.js';
import type { TlsListeners } from './tls_listeners.js';

export interface FigureParts {
  relay: NativeRelay;
  /** Of each shard. */
  counters: readonly BigInt64Array[];
  forwarders: Forwarders;
  tls: TlsListeners;
  webSockets: WebSockets;
  /** Figures of the receive limit. */
  limits: Stats;
  /** Figures of admission. */
  admission: Stats;
}

export function relayFigures({
  relay,
  counters: ofShards,
  forwarders,
  tls,
  webSockets,
  limits,
  admission,
}: FigureParts): ServerStats {
  const { failures, evicted } = relay;
  const { [TLS_ACTIVE]: tlsClients, ...counters } = sumCounters(ofShards);
  const withOurs = (name: string, ours: number) => ({ [name]: (counters[name] as number) + ours });
  const figures: Stats = {
    ...counters,
    accepts: relay.accepts,
    websocket_accepts: webSockets.accepts,
    websockets_failed: webSockets.faults,
    ...withOurs('multiforwarder_created', forwarders.multiCreated),
    ...withOurs('multiforwarder_deleted', forwarders.multiDeleted),
    ...withOurs('packet_forwarder_delete_other_value', forwarders.deleteOtherValue),
    ...limits,
    ...admission,
    ...labelFigures(relay, ofShards),
    ...tls.vars(relay, tlsClients as Stats),
    gauge_current_file_descriptors: fileDescriptors(),
    gauge_memstats_sys0: MEMORY_AT_START,
    gauge_handshakes_in_progress: relay.handshakes,
    gauge_handshakes_waiting: relay.waitingHandshakes,
    refused_connections: {
      accept_limit: relay.refusedByLimit,
      handshakes: relay.refused,
      handshake_bytes: relay.refusedBytes,
    },
    evicted_connections: Object.fromEntries(EVICTIONS.map((name, index) => [name, evicted[index]!])),
    handshakes_failed: {
      ...Object.fromEntries(HANDSHAKE_FAILURES.map((name, index) => [name, failures[index] ?? 0])),
      // JavaScript does not hear of all of these.
      evicted: evicted.reduce((sum, count) => sum + count, 0),
      silent: relay.mute,
    },
  };
  return figures as ServerStats;
}
