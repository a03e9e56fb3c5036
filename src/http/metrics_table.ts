/** Every metric of the relay: its name at /debug/varz, type, meaning, labels, and where its value stands. */

import type { CertificateExpiry } from '../certificates/expiry.js';
import type { Stats } from '../server/stats.js';
import type { StunStats } from '../stun/stun_server.js';
import type { BootstrapDnsCounts } from './bootstrap_dns.js';

/** What metrics are made of. */
export interface Figures {
  /** {@link Server.expVar}; undefined where no DERP is served. */
  relay: Stats | undefined;
  /** {@link Server.shardVars}. */
  shards: Stats[];
  /** Certificates of TLS; empty if TLS is not served. */
  certificates: readonly CertificateExpiry[];
  /** Undefined if `/bootstrap-dns` is not served. */
  bootstrapDns: BootstrapDnsCounts | undefined;
  /** Undefined if STUN is not served. */
  stun: StunFigures | undefined;
  /** Lines that the program's log lost; undefined with another logger. */
  logLinesLost: number | undefined;
  version: string;
  /** Seconds since the program started. */
  uptime: number;
  /** Seconds since 1970. */
  startTime: number;
  /** Seconds since 1970 at which the machine started. */
  bootTime: number;
  /** Connections of page servers, over the whole process. */
  pages: { refused: number; evicted: number; evictedOfSource: number };
}

/** What metrics of STUN are made of. */
export interface StunFigures {
  /** Undefined: it could not listen. */
  stats: StunStats | undefined;
  /** 1 once clients seem to be hidden by NAT in front of the relay. */
  hidesClients: number;
}

export interface Metric {
  name: string;
  type: 'counter' | 'gauge' | 'histogram' | 'untyped';
  help: string;
  /** Names of the labels, from the outermost level of the value to the innermost. */
  labels: string[];
  /** Undefined: the metric has no value now and is left out. */
  value: (figures: Figures) => Stats | number | undefined;
}

type Row = [name: string, type: Metric['type'], help: string, ...labels: string[]];

/** The names of derper, without their prefix `derp_`. */
const DERP: Row[] = [
  ['accepts', 'counter', 'Upgrades to DERP, counted when the relay sends its key.'],
  [
    'average_queue_duration_ms',
    'untyped',
    'Moving average of the time that packets waited for their client, in milliseconds.',
  ],
  [
    'buffered_write_frames',
    'histogram',
    'Frames per flush to a client; a batch of presence changes is one, ServerInfo none.',
  ],
  ['bytes_dropped', 'counter', 'DERP bytes dropped by reason and by kind.', 'reason', 'kind'],
  ['bytes_received', 'counter', 'Payload bytes of packets that clients sent.'],
  ['bytes_sent', 'counter', 'Payload bytes of packets sent to clients.'],
  ['clients_local', 'gauge', 'Keys with at least one connection here.'],
  ['clients_remote', 'gauge', 'Keys that only other relays of the region have.'],
  ['clients_total', 'gauge', 'Keys connected here or known to be reachable through the mesh.'],
  ['current_connections', 'gauge', 'Clients, duplicates and mesh peers included.'],
  ['current_dup_client_conns', 'gauge', 'Connections of keys that have several.'],
  ['current_dup_client_keys', 'gauge', 'Keys that have several connections.'],
  ['current_file_descriptors', 'gauge', 'Descriptors that the process has open.'],
  ['current_home_connections', 'gauge', 'Clients that call this relay their home.'],
  ['current_notideal_connections', 'gauge', 'Clients for which another node of the region would be ideal.'],
  ['got_ping', 'counter', 'Ping frames.'],
  ['home_moves_in', 'counter', 'Clients that made this relay their home more than 5 s after connecting.'],
  ['home_moves_out', 'counter', 'Clients that gave this relay up as their home more than 5 s after connecting.'],
  ['memstats_sys0', 'gauge', 'Bytes of memory resident when the relay was loaded.'],
  ['mesh_update_batch_size', 'histogram', 'Presence changes that a watcher took at once.'],
  ['mesh_update_loop_count', 'histogram', 'Batches of presence changes per wake of a watcher.'],
  ['multiforwarder_created', 'counter', 'Keys that got a second forwarder.'],
  ['multiforwarder_deleted', 'counter', 'Keys that went back to one forwarder.'],
  ['packet_forwarder_delete_other_value', 'counter', 'Removals of a forwarder that its key did not have.'],
  ['packets_dropped', 'counter', 'DERP packets dropped by reason and by kind.', 'reason', 'kind'],
  ['packets_forwarded_in', 'counter', 'Packets that mesh peers forwarded to this relay.'],
  ['packets_forwarded_out', 'counter', 'Packets forwarded to other relays.'],
  ['packets_received', 'counter', 'Packets that clients sent.'],
  ['packets_received_kind', 'counter', 'Packets that clients sent, by kind.', 'kind'],
  ['packets_sent', 'counter', 'Packets sent to clients.'],
  ['peer_gone_disconnected_frames', 'counter', 'PeerGone frames that say that a key left.'],
  ['peer_gone_not_here_frames', 'counter', 'PeerGone frames that answer a packet to an unknown key.'],
  ['rate_limit_per_client_burst_bytes', 'untyped', 'Bytes that a client may send at once.'],
  ['rate_limit_per_client_bytes_per_second', 'untyped', 'Bytes per second that a client may send.'],
  ['sclient_write_timeouts', 'counter', 'Clients closed by write timeout.'],
  ['sent_pong', 'counter', 'Pong frames sent.'],
  ['tcp_rtt', 'counter', 'Measurements of round-trip times of TCP connections; each in its own bucket only.', 'le'],
  ['total_dup_client_conns', 'counter', 'Connections that joined a key already connected.'],
  ['unknown_frames', 'counter', 'Frames of unknown type, skipped.'],
  ['watchers', 'gauge', 'Mesh peers that watch who is connected.'],
];

/** Ours, of the whole relay, without their prefix `derplane_`; names of counters get `_total` behind them. */
const DERPLANE: Row[] = [
  ['admission_refused', 'counter', 'Clients that may not use the relay, by what refused them.', 'source'],
  ['admission_failed_open', 'counter', 'Clients admitted since the admission URL was unreachable.'],
  ['admission_keys', 'gauge', 'Keys in the list of allowed keys.'],
  ['admission_waiting', 'gauge', 'Clients that wait for the decision whether they may use the relay.'],
  ['open_to_anyone', 'gauge', 'Whether anyone who can reach the relay may use it.'],
  ['handshakes_in_progress', 'gauge', 'Connections between accept and their first frame as a client.'],
  ['handshakes_waiting', 'gauge', 'Connections in progress that no handshake thread has taken up yet.'],
  ['held_bytes', 'gauge', 'Bytes read and kept until another shard has room for them.'],
  ['queue_bytes', 'gauge', 'Memory of the send queues of clients that do not keep up.'],
];

/** Ours, by shard, without their prefix `derplane_shard_`; names of counters get `_total` behind them. */
const SHARD: Row[] = [
  ['bytes_received', 'counter', 'Payload bytes of packets that clients of the shard sent.'],
  ['bytes_sent', 'counter', 'Payload bytes of packets sent to clients of the shard.'],
  ['crowd_pauses', 'counter', 'Times that a mesh link, or a frame of a mesh peer, waited for long lists of notices.'],
  ['current_connections', 'gauge', 'Clients of the shard.'],
  ['held_bytes', 'gauge', 'Bytes read and kept until another shard has room for them.'],
  [
    'lost_wakes',
    'counter',
    'Times that a timer found room in a ring and no wake-up on its way. Stays 0; anything else is a bug.',
  ],
  ['packets_received', 'counter', 'Packets that clients of the shard sent.'],
  ['packets_sent', 'counter', 'Packets sent to clients of the shard.'],
  ['queue_bytes', 'gauge', 'Memory of the send queues of clients that do not keep up.'],
  ['reads', 'counter', 'Reads of sockets.'],
  ['ring_full', 'counter', 'Times that a connection waited because the ring to another shard was full.'],
  ['ring_packets_in', 'counter', 'Packets taken from other shards.'],
  ['ring_packets_out', 'counter', 'Packets given to other shards.'],
  ['ring_wakes', 'counter', 'Times that another shard had to be woken.'],
  ['senders_forgotten', 'counter', 'Packets whose sender was not remembered, since the shard knows too many.'],
  ['turns', 'counter', 'Turns of the event loop that had something to do.'],
  ['writes', 'counter', 'Writes to sockets.'],
];

/** Ours, by the label that admission gave, without their prefix `derplane_label_`; there are such figures only where there are labels. */
const LABEL: Row[] = [
  ['clients', 'gauge', 'Clients with the label.'],
  ['packets_received', 'counter', 'Packets that clients with the label sent.'],
  ['bytes_received', 'counter', 'Payload bytes of packets that clients with the label sent.'],
  ['packets_sent', 'counter', 'Packets sent to clients with the label.'],
  ['bytes_sent', 'counter', 'Payload bytes of packets sent to clients with the label.'],
  ['packets_dropped', 'counter', 'Packets of clients with the label dropped: without a receiver, or with a slow one.'],
  ['bytes_dropped', 'counter', 'Payload bytes of packets of clients with the label dropped.'],
  ['limit_waited', 'counter', 'Frames of clients with the label that waited for a receive limit.'],
];

/** The names of derper for TLS; there are such figures only where it is served. */
const TLS: Row[] = [
  ['derper_tls_active_version', 'gauge', 'Clients over TLS, and requests being answered, by version.', 'version'],
  ['derper_tls_request_version', 'untyped', 'HTTP requests over TLS, upgrades included, by version.', 'version'],
];

/** The names of derper for bootstrap DNS, without their prefix `bootstrap_dns_`. */
const BOOTSTRAP_DNS: [name: keyof BootstrapDnsCounts, help: string][] = [
  ['published_hits', 'Requests for a published name.'],
  ['published_misses', 'Requests for a published name that has no address; stays 0.'],
  ['queried_domains', 'Distinct names that clients asked for; starts over beyond 500.'],
  ['requests', 'Requests for /bootstrap-dns.'],
  ['unpublished_hits', 'Requests for an unpublished name, those that its rollout refused included.'],
  ['unpublished_misses', 'Requests for a name that is not published.'],
  ['unpublished_percent_misses', 'Requests for an unpublished name that its rollout refused.'],
];

export const METRICS: readonly Metric[] = [
  ...DERP.map((row) => metric('derp_', row, ({ relay }) => find(relay, row[0]))),
  {
    ...metric(
      'derp_',
      ['rate_limit_per_client_waited', 'counter', 'Frames that waited for the receive limit.'],
      () => undefined,
    ),
    // As derper: it belongs to the limit, which may be absent.
    value: ({ relay }) =>
      relay?.['rate_limit_per_client_bytes_per_second'] === undefined
        ? undefined
        : find(relay, 'rate_limit_per_client_waited'),
  },
  metric(
    'derp_',
    ['websocket_accepts', 'counter', 'Upgrades to WebSocket with the subprotocol of DERP.'],
    ({ relay }) => find(relay, 'websocket_accepts'),
  ),
  ...TLS.map((row) => metric('', row, ({ relay }) => find(relay, row[0]))),
  metric(
    '',
    [
      'tls_listener_accepted_connections',
      'counter',
      'Connections accepted by listeners with TLS, before its handshake.',
    ],
    ({ relay }) => find(relay?.['tls_listener'] as Stats | undefined, 'accepted_connections'),
  ),
  metric(
    '',
    ['tls_listener_rejected_connections', 'counter', 'Connections that listeners with TLS refused.'],
    ({ relay }) => find(relay?.['tls_listener'] as Stats | undefined, 'rejected_connections'),
  ),
  ours(
    'derplane_',
    [
      'evicted_connections',
      'counter',
      'Silent connections ended to make room for newcomers, by what had run out.',
      'reason',
    ],
    ({ relay, pages }) => ({
      ...(find(relay, 'evicted_connections') as Stats | undefined),
      pages: pages.evicted,
      pages_source_share: pages.evictedOfSource,
    }),
  ),
  ours(
    'derplane_',
    [
      'refused_connections',
      'counter',
      'Connections refused as there were too many, handshakes held too many bytes, and none was silent.',
      'reason',
    ],
    ({ relay, pages }) => ({ ...(find(relay, 'refused_connections') as Stats | undefined), pages: pages.refused }),
  ),
  ...DERPLANE.map((row) => ours('derplane_', row, ({ relay }) => find(relay, row[0]))),
  ours(
    'derplane_',
    ['closed_connections', 'counter', 'Clients whose connection ended, by reason.', 'reason'],
    ({ relay }) => find(relay, 'closed'),
  ),
  ours(
    'derplane_',
    ['websockets_failed', 'counter', 'WebSockets refused or closed as their client broke a rule, by rule.', 'reason'],
    ({ relay }) => find(relay, 'websockets_failed'),
  ),
  ours('derplane_', ['handshakes', 'counter', 'Handshakes that ended, by outcome.', 'outcome'], ({ relay }) =>
    outcomes(relay),
  ),
  ours(
    'derplane_',
    ['certificate_not_after_seconds', 'gauge', 'When a certificate expires, in seconds since 1970.', 'name'],
    ({ certificates }) => certificateFigures(certificates, ({ notAfter }) => notAfter.getTime() / 1000),
  ),
  ours(
    'derplane_',
    ['certificate_remaining_seconds', 'gauge', 'Seconds until a certificate expires; below 0 once it has.', 'name'],
    ({ certificates }) => certificateFigures(certificates, ({ notAfter }) => (notAfter.getTime() - Date.now()) / 1000),
  ),
  ...LABEL.map((row) =>
    ours('derplane_label_', [row[0], row[1], row[2], 'label'], ({ relay }) => find(relay, `label_${row[0]}`)),
  ),
  ours(
    'derplane_',
    ['label_overflow', 'counter', 'Clients counted under label other, as there were too many labels.'],
    ({ relay }) => find(relay, 'label_overflow'),
  ),
  ...SHARD.map((row) =>
    ours('derplane_shard_', [row[0], row[1], row[2], 'shard'], ({ shards }) =>
      shards.length === 0 ? undefined : Object.fromEntries(shards.map((stats, shard) => [shard, find(stats, row[0])!])),
    ),
  ),
  ...BOOTSTRAP_DNS.map(([name, help]) =>
    metric('bootstrap_dns_', [name, 'counter', help], ({ bootstrapDns }) => bootstrapDns?.[name]),
  ),
  ...stunMetrics(),
  metric(
    'derplane_',
    ['log_lines_lost_total', 'counter', 'Log lines that could not be written, or were not read in time.'],
    ({ logLinesLost }) => logLinesLost,
  ),
  metric(
    '',
    ['node_boot_time_seconds', 'untyped', 'When the machine started, in seconds since 1970.'],
    (f) => f.bootTime,
  ),
  metric(
    '',
    ['process_start_unix_time', 'untyped', 'When the program started, in seconds since 1970.'],
    (f) => f.startTime,
  ),
  metric('', ['uptime_sec', 'counter', 'Seconds since the program started.'], (f) => f.uptime),
  metric('', ['version', 'untyped', 'Version of the program.', 'version', 'binary'], (f) => ({
    [f.version]: { derplane: 1 },
  })),
];

function metric(prefix: string, [name, type, help, ...labels]: Row, value: Metric['value']): Metric {
  return { name: prefix + name, type, help, labels, value };
}

/** Those of derper, and ours. Where STUN could not listen its figures are 0. */
function stunMetrics(): Metric[] {
  const figure =
    (read: (stats: StunStats) => unknown): Metric['value'] =>
    ({ stun }) =>
      stun === undefined ? undefined : (read(stun.stats ?? NO_STUN) as Stats | number);
  return [
    metric(
      'stun_',
      ['addrfamily', 'counter', 'STUN requests by address family.', 'family'],
      figure((s) => s.addrfamily),
    ),
    metric(
      'stun_',
      ['no_local_addr', 'counter', 'STUN requests for which the kernel did not tell the address they were sent to.'],
      figure((s) => s.no_local_addr),
    ),
    metric(
      'stun_',
      ['requests', 'counter', 'STUN datagrams by what became of them.', 'disposition'],
      figure((s) => s.requests),
    ),
    ours(
      'derplane_',
      ['stun_rate_limited', 'counter', 'STUN requests without an answer, since their source asked too often.'],
      figure((s) => s.rate_limited),
    ),
    ours(
      'derplane_',
      ['stun_told_private', 'counter', 'STUN answers with a private address.'],
      figure((s) => s.told_private),
    ),
    ours('derplane_', ['stun_up', 'gauge', 'Whether STUN is served; 0 where its port is unavailable.'], ({ stun }) =>
      stun === undefined ? undefined : Number(stun.stats !== undefined),
    ),
    ours(
      'derplane_',
      ['stun_hides_clients', 'gauge', 'Whether NAT in front of the relay seems to hide the addresses of clients.'],
      ({ stun }) => stun?.hidesClients,
    ),
  ];
}

const NO_STUN: StunStats = {
  requests: { success: 0, not_stun: 0, read_error: 0, write_error: 0 },
  addrfamily: { ipv4: 0, ipv6: 0 },
  no_local_addr: 0,
  rate_limited: 0,
  told_private: 0,
};

/** One of our own: its counters are named as Prometheus wants them, while those of derper keep their names. */
function ours(prefix: string, [name, type, ...rest]: Row, value: Metric['value']): Metric {
  return metric(prefix, [type === 'counter' ? `${name}_total` : name, type, ...rest], value);
}

/** A figure by its bare name. */
function find(stats: Stats | undefined, name: string): Stats | number | undefined {
  return stats?.[`gauge_${name}`] ?? stats?.[`counter_${name}`] ?? stats?.[name];
}

function outcomes(relay: Stats | undefined): Stats | undefined {
  return relay === undefined ? undefined : { ok: relay['adopted']!, ...(relay['handshakes_failed'] as Stats) };
}

function certificateFigures(
  certificates: readonly CertificateExpiry[],
  figure: (certificate: CertificateExpiry) => number,
): Stats | undefined {
  if (certificates.length === 0) return undefined;
  return Object.fromEntries(certificates.map((certificate) => [certificate.name, figure(certificate)]));
}
