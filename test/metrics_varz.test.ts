/** What scrapers and dashboards made for derper find here. */
import { BootstrapDns, StunServer } from 'derplane';
import { beforeAll, describe, expect, test } from 'vitest';
import { METRICS } from '../dist/http/metrics_table.js';
import { ask, families, samples, withMetrics } from './support/debug_server.js';
import { type Family, parsePrometheus } from './support/prometheus.js';
import { patterned, withRelay } from './support/relay.js';

/** Bounds of derper's histograms. */
const BOUNDS = {
  derp_buffered_write_frames: '0 1 2 3 4 5 6 7 8 9 10 15 20 25 50 100 +Inf',
  derp_mesh_update_batch_size: '0 1 2 5 10 20 50 100 200 500 1000 +Inf',
  derp_mesh_update_loop_count: '0 1 2 5 10 20 50 100 +Inf',
};
const REASONS = 'dup_client gone_disconnected queue_head queue_tail unknown_dest unknown_dest_on_fwd write_error';

/** Names and types at derper's /debug/varz, without those of Go's runtime. */
const REFERENCE: Record<string, string> = {
  counter: `derp_accepts derp_bytes_received derp_bytes_sent derp_got_ping derp_home_moves_in derp_home_moves_out
    derp_multiforwarder_created derp_multiforwarder_deleted derp_packet_forwarder_delete_other_value derp_packets_forwarded_in
    derp_packets_forwarded_out derp_packets_received derp_packets_sent derp_peer_gone_disconnected_frames
    derp_peer_gone_not_here_frames derp_sclient_write_timeouts derp_sent_pong derp_total_dup_client_conns derp_unknown_frames derp_websocket_accepts
    process_cpu_seconds_total process_network_receive_bytes_total process_network_transmit_bytes_total uptime_sec
    bootstrap_dns_published_hits bootstrap_dns_published_misses bootstrap_dns_queried_domains bootstrap_dns_requests
    bootstrap_dns_unpublished_hits bootstrap_dns_unpublished_misses bootstrap_dns_unpublished_percent_misses
    stun_addrfamily{family="ipv4"} stun_addrfamily{family="ipv6"} stun_no_local_addr stun_requests{disposition="not_stun"}
    stun_requests{disposition="read_error"} stun_requests{disposition="success"} stun_requests{disposition="write_error"}
    derp_packets_received_kind{kind="disco"} derp_packets_received_kind{kind="other"} derp_tcp_rtt{le="10ms"}
    derp_tcp_rtt{le="non-tcp"} derp_rate_limit_per_client_waited`,
  gauge: `derp_clients_local derp_clients_remote derp_clients_total derp_current_connections derp_current_dup_client_conns
    derp_current_dup_client_keys derp_current_file_descriptors derp_current_home_connections derp_current_notideal_connections
    derp_memstats_sys0 derp_watchers process_max_fds process_open_fds process_resident_memory_bytes process_start_time_seconds
    process_virtual_memory_bytes process_virtual_memory_max_bytes`,
  untyped: `derp_average_queue_duration_ms node_boot_time_seconds process_start_unix_time
    derp_rate_limit_per_client_burst_bytes derp_rate_limit_per_client_bytes_per_second version{version="1.2.3",binary="derplane"}`,
};

const certificates = () => [{ name: 'derp.example.com', notAfter: new Date() }];

describe('at /debug/varz', () => {
  let text = '';
  let found = new Map<string, Family>();

  beforeAll(() =>
    withRelay({ shards: 2 }, async ({ server }) => {
      await using stun = await StunServer.listen({ host: '127.0.0.1', port: 0 });
      const sources = { relay: server, certificates, bootstrapDns: new BootstrapDns(), stun };
      await withMetrics({ ...sources, version: '1.2.3' }, async (port) => {
        server.setRateLimit(1_000_000);
        ({ body: text } = await ask(port, '/debug/varz'));
        found = parsePrometheus(text);
      });
    }),
  );

  const names = Object.entries(REFERENCE).flatMap(([type, list]) =>
    list.split(/\s+/).map((name) => [name, type] as const),
  );

  test.each(names)('%s is a %s, as in derper', (name, type) => {
    const family = found.get(name.replace(/\{.*/, ''));
    expect(family?.type).toBe(type);
    expect([...family!.samples.keys()]).toContain(name);
  });

  test.each(Object.entries(BOUNDS))('%s has the bounds of derper', (name, bounds) => {
    const family = found.get(name);
    expect(family?.type).toBe('histogram');
    const expected = bounds.split(' ').map((le) => `${name}_bucket{le="${le}"}`);
    expect([...family!.samples.keys()]).toEqual([...expected, `${name}_sum`, `${name}_count`]);
  });

  test.each(['derp_packets_dropped', 'derp_bytes_dropped'])('%s is there by reason and kind', (name) => {
    const expected = REASONS.split(' ').flatMap((reason) =>
      ['disco', 'other'].map((kind) => `${name}{reason="${reason}",kind="${kind}"}`),
    );
    expect([...found.get(name)!.samples.keys()].sort()).toEqual(expected.sort());
  });

  test('no figure of the relay is missing, and each says what it means', () => {
    // Those of TLS are only where it is served, that of the log only in the program, those of labels only where clients have some:
    // metrics_tls.test.ts, log_sinks.test.ts, client_limits.test.ts.
    const here = METRICS.filter(({ name }) => !/^(?:derper_tls|tls_listener|derplane_log|derplane_label)_/.test(name));
    for (const { name, type, help } of here) expect(found.get(name)).toMatchObject({ type, help });
  });

  test('Node tells of its heap and of delays of the main thread', () => {
    for (const name of [
      'nodejs_heap_size_used_bytes',
      'nodejs_eventloop_lag_p99_seconds',
      'nodejs_gc_duration_seconds',
    ]) {
      expect(found.has(name)).toBe(true);
    }
    expect(text).not.toMatch(/^go_|^memstats_/m);
  });

  test('the figures of the process are plausible', () => {
    const value = (name: string) => found.get(name)!.samples.get(name)!;
    expect(value('process_resident_memory_bytes')).toBeGreaterThan(10e6);
    expect(value('process_open_fds')).toBeGreaterThan(10);
    expect(value('process_open_fds')).toBeLessThan(value('process_max_fds'));
    expect(value('derp_current_file_descriptors')).toBeGreaterThan(10);
    expect(value('derp_memstats_sys0')).toBeGreaterThan(10e6);
    expect(value('process_network_receive_bytes_total')).toBeGreaterThan(0);
    expect(value('process_virtual_memory_max_bytes')).toBeGreaterThan(value('process_virtual_memory_bytes'));
    expect(Math.abs(value('process_start_unix_time') - value('process_start_time_seconds'))).toBeLessThan(3);
    expect(value('node_boot_time_seconds')).toBeLessThan(value('process_start_unix_time'));
  });
});

describe('figures', () => {
  test('of the receive limit are there once one was set, at 0 too, as in derper', () =>
    withRelay({ shards: 1 }, ({ server }) =>
      withMetrics({ relay: server }, async (port) => {
        expect([...(await families(port)).keys()].filter((name) => name.includes('rate_limit'))).toEqual([]);
        expect(JSON.stringify(server.expVar())).not.toContain('bytes_per_second');
        server.setRateLimit(5000);
        expect((await samples(port)).get('derp_rate_limit_per_client_bytes_per_second')).toBe(5000);
        expect((await samples(port)).get('derp_rate_limit_per_client_burst_bytes')).toBe(65_568);
        server.setRateLimit(0);
        const found = await samples(port);
        for (const name of ['bytes_per_second', 'burst_bytes', 'waited'])
          expect([name, found.get(`derp_rate_limit_per_client_${name}`)]).toEqual([name, 0]);
      }),
    ));

  test('count what happened, exactly', () =>
    withRelay({ shards: 2 }, (relay) =>
      withMetrics({ relay: relay.server }, async (port) => {
        const [a, b] = await relay.pair('across shards');
        for (let n = 0; n < 10; n++) {
          await a.send(b.publicKey, patterned(100));
          await b.expectPacket();
        }
        await relay.untilAllAccountedFor();
        await relay.untilCounter(['counter_buffered_write_frames', 'sum'], (value) => value >= 10);
        const found = await samples(port);
        expect(found.get('derp_accepts')).toBe(2);
        expect(found.get('derp_packets_received')).toBe(10);
        expect(found.get('derp_bytes_sent')).toBe(1000);
        expect(found.get('derp_packets_received_kind{kind="other"}')).toBe(10);
        // Ten packets, each written by itself; ServerInfo does not count, as in derper.
        expect(found.get('derp_buffered_write_frames_bucket{le="0"}')).toBe(0);
        expect(found.get('derp_buffered_write_frames_bucket{le="1"}')).toBe(10);
        expect(found.get('derp_buffered_write_frames_count')).toBe(10);
        expect(found.get('derplane_handshakes_total{outcome="ok"}')).toBe(2);
        expect(found.get('derplane_shard_ring_packets_out_total{shard="0"}')).toBe(10);
        expect(found.get('derplane_shard_ring_packets_in_total{shard="1"}')).toBe(10);
        expect(found.get('derplane_shard_current_connections{shard="1"}')).toBe(1);
      }),
    ));
});

describe('at /debug/vars', () => {
  test('the same figures stand as derper has them', () =>
    withRelay({ shards: 2 }, (relay) =>
      withMetrics({ relay: relay.server, version: '1.2.3', cmdline: ['derplane', '-dev'] }, async (port) => {
        const [a, b] = await relay.pair('across shards');
        await a.send(b.publicKey, patterned(100));
        await b.expectPacket();
        await relay.untilCounter(['packets_sent'], (value) => value === 1);
        const { body, headers } = await ask(port, '/debug/vars');
        expect(headers['content-type']).toBe('application/json; charset=utf-8');
        const vars = JSON.parse(body);
        expect(vars).toMatchObject({
          cmdline: ['derplane', '-dev'],
          counter_uptime_sec: expect.any(Number),
          derp: {
            accepts: 2,
            average_queue_duration_ms: 0,
            bytes_received: 100,
            counter_buffered_write_frames: { '0': 0, '100': 1, '+Inf': 1, count: 1, sum: 1 },
            counter_mesh_update_batch_size: { '1000': 0, count: 0, sum: 0 },
            counter_packets_received_kind: { disco: 0, other: 1 },
            counter_tcp_rtt: { '10ms': 0 },
            counter_total_dup_client_conns: 0,
            gauge_clients_local: 2,
            gauge_current_file_descriptors: expect.any(Number),
            gauge_memstats_sys0: expect.any(Number),
            gauge_watchers: 0,
            got_ping: 0,
            version: '1.2.3',
          },
          derp_packets_dropped: { queue_head: { disco: 0, other: 0 } },
          node_boot_time_seconds: expect.any(Number),
          process_start_unix_time: expect.any(Number),
          version: '1.2.3',
        });
        expect(Object.keys(vars.derp)).not.toContain('turns');
        expect(vars.derplane.shards).toHaveLength(2);
        expect(Object.keys(vars.derp)).toEqual(Object.keys(vars.derp).toSorted());
      }),
    ));
});
