/** The figures of a relay by name and form; `test/api_surface.test.ts` holds the lists against what a relay has. */
import type { Stats } from './stats.js';

/** Figures that are one number. */
export const NUMBER_FIGURES = [
  'accepts',
  'admission_failed_open',
  'adopted',
  'average_queue_duration_ms',
  'bytes_received',
  'bytes_sent',
  'counter_total_dup_client_conns',
  'crowd_pauses',
  'gauge_admission_keys',
  'gauge_admission_waiting',
  'gauge_clients_local',
  'gauge_clients_remote',
  'gauge_clients_total',
  'gauge_current_connections',
  'gauge_current_dup_client_conns',
  'gauge_current_dup_client_keys',
  'gauge_current_file_descriptors',
  'gauge_current_home_connections',
  'gauge_current_notideal_connections',
  'gauge_handshakes_in_progress',
  'gauge_handshakes_waiting',
  'gauge_held_bytes',
  'gauge_memstats_sys0',
  'gauge_open_to_anyone',
  'gauge_queue_bytes',
  'gauge_watchers',
  'got_ping',
  'home_moves_in',
  'home_moves_out',
  'lost_wakes',
  'multiforwarder_created',
  'multiforwarder_deleted',
  'packet_forwarder_delete_other_value',
  'packets_forwarded_in',
  'packets_forwarded_out',
  'packets_received',
  'packets_sent',
  'peer_gone_disconnected_frames',
  'peer_gone_not_here_frames',
  'rate_limit_per_client_waited',
  'reads',
  'ring_full',
  'ring_packets_in',
  'ring_packets_out',
  'ring_wakes',
  'sclient_write_timeouts',
  'senders_forgotten',
  'sent_pong',
  'turns',
  'unknown_frames',
  'websocket_accepts',
  'writes',
] as const;

/** Figures by one label. */
export const LABELLED_FIGURES = [
  'admission_refused',
  'closed',
  'counter_buffered_write_frames',
  'counter_mesh_update_batch_size',
  'counter_mesh_update_loop_count',
  'counter_packets_received_kind',
  'counter_tcp_rtt',
  'evicted_connections',
  'handshakes_failed',
  'refused_connections',
  'websockets_failed',
] as const;

/** Figures by drop reason and kind of packet. */
export const DROP_FIGURES = ['packets_dropped', 'bytes_dropped'] as const;

type Numbers = Readonly<Record<(typeof NUMBER_FIGURES)[number], number>>;
type Labelled = Readonly<Record<(typeof LABELLED_FIGURES)[number], { readonly [label: string]: number }>>;
type Drops = Readonly<
  Record<
    (typeof DROP_FIGURES)[number],
    { readonly [reason: string]: { readonly disco: number; readonly other: number } }
  >
>;

/** What `Server.expVar` returns. Figures that only some relays have (TLS, rate limits) are there by index. */
export type ServerStats = Numbers & Labelled & Drops & Stats;

/** What `Server.shardVars` returns of each shard. */
export type ShardStats = Readonly<
  Record<
    | 'packets_received'
    | 'bytes_received'
    | 'packets_sent'
    | 'bytes_sent'
    | 'ring_packets_in'
    | 'ring_packets_out'
    | 'ring_full'
    | 'ring_wakes'
    | 'crowd_pauses'
    | 'lost_wakes'
    | 'senders_forgotten'
    | 'turns'
    | 'reads'
    | 'writes'
    | 'gauge_current_connections'
    | 'gauge_queue_bytes'
    | 'gauge_held_bytes',
    number
  >
> &
  Stats;
