/** Every figure of the relay moves with what it counts. */
import { duplexPair } from 'node:stream';
import { PrivateKey } from 'derplane';
import { beforeAll, describe, expect, test } from 'vitest';
import { METRICS } from '../dist/http/metrics_table.js';
import { samples, withMetrics } from './support/debug_server.js';
import { discoPacket, Frame, forwardPacketFrame, frame, RawClient, upgradeHead } from './support/raw_client.js';
import { patterned, type TestRelay, withRelay } from './support/relay.js';

const MESH_KEY = 'ab'.repeat(32);

/** Metrics that need congestion or seconds, and where they move. */
const ELSEWHERE = new Map([
  ['bootstrap_dns_published_hits', 'bootstrap_dns.test.ts'],
  ['bootstrap_dns_published_misses', 'bootstrap_dns.test.ts'],
  ['bootstrap_dns_queried_domains', 'bootstrap_dns.test.ts'],
  ['bootstrap_dns_requests', 'bootstrap_dns.test.ts'],
  ['bootstrap_dns_unpublished_hits', 'bootstrap_dns.test.ts'],
  ['bootstrap_dns_unpublished_misses', 'bootstrap_dns.test.ts'],
  ['bootstrap_dns_unpublished_percent_misses', 'bootstrap_dns.test.ts'],
  ['derp_home_moves_in', 'test/native/router_frames_test.cc'],
  ['derp_home_moves_out', 'test/native/router_frames_test.cc'],
  ['derp_sclient_write_timeouts', 'relay_slow_reader.test.ts'],
  ['derp_websocket_accepts', 'websocket.test.ts'],
  ['derper_tls_active_version', 'metrics_tls.test.ts'],
  ['derper_tls_request_version', 'metrics_tls.test.ts'],
  ['tls_listener_accepted_connections', 'metrics_tls.test.ts'],
  ['tls_listener_rejected_connections', 'metrics_tls.test.ts'],
  ['derplane_admission_failed_open_total', 'admission_url.test.ts'],
  ['derplane_admission_keys', 'admission_keys.test.ts'],
  ['derplane_admission_refused_total', 'admission.test.ts'],
  ['derplane_admission_waiting', 'admission.test.ts'],
  ['derplane_certificate_remaining_seconds', 'certificates_expiry.test.ts'],
  ['derplane_certificate_not_after_seconds', 'certificates_expiry.test.ts'],
  ['derplane_evicted_connections_total', 'handshake_silent.test.ts'],
  ['derplane_handshakes_in_progress', 'below: connections that say nothing'],
  ['derplane_handshakes_waiting', 'test/native/metrics_test.cc'],
  ['derplane_held_bytes', 'limits_floods.test.ts'],
  ['derplane_label_clients', 'client_limits.test.ts'],
  ['derplane_label_packets_received_total', 'client_limits.test.ts'],
  ['derplane_label_bytes_received_total', 'client_limits.test.ts'],
  ['derplane_label_packets_sent_total', 'client_limits.test.ts'],
  ['derplane_label_bytes_sent_total', 'client_limits.test.ts'],
  ['derplane_label_packets_dropped_total', 'client_limits.test.ts'],
  ['derplane_label_bytes_dropped_total', 'client_limits.test.ts'],
  ['derplane_label_limit_waited_total', 'client_limits.test.ts'],
  ['derplane_label_overflow_total', 'client_limits.test.ts'],
  ['derplane_log_lines_lost_total', 'log_sinks.test.ts'],
  ['derplane_refused_connections_total', 'below: connections that say nothing'],
  ['derplane_shard_crowd_pauses_total', 'test/native/link_test.cc'],
  ['derplane_shard_held_bytes', 'limits_floods.test.ts'],
  ['derplane_shard_lost_wakes_total', 'nowhere: it stays 0, see test/support/relay.ts'],
  ['derplane_shard_ring_full_total', 'test/native/router_rings_test.cc'],
  ['stun_addrfamily', 'stun.test.ts'],
  ['stun_no_local_addr', 'stun.test.ts'],
  ['stun_requests', 'stun.test.ts'],
  ['derplane_stun_rate_limited_total', 'stun.test.ts'],
  ['derplane_stun_told_private_total', 'stun.test.ts'],
  ['derplane_stun_up', 'stun.test.ts'],
  ['derplane_stun_hides_clients', 'stun.test.ts'],
  ['derplane_websockets_failed_total', 'websocket_faults.test.ts'],
  ['derplane_shard_senders_forgotten_total', 'nowhere: it takes 4,194,304 pairs'],
]);

describe('after some of everything', () => {
  /** The highest value that was seen of each sample. */
  const peak = new Map<string, number>();
  let last = new Map<string, number>();

  beforeAll(() =>
    withRelay(
      { shards: 2, mesh: { key: MESH_KEY }, timeouts: { write: 0, rttInterval: 20 }, queues: { depth: 4 } },
      (relay) =>
        withMetrics({ relay: relay.server }, (port) =>
          everything(relay, async () => {
            last = await samples(port);
            for (const [name, value] of last) peak.set(name, Math.max(value, peak.get(name) ?? 0));
            return last;
          }),
        ),
    ),
  );

  test('every metric has moved', () => {
    const moved = new Set([...peak].filter(([, value]) => value > 0).map(([key]) => familyOf(key)));
    const still = METRICS.map(({ name }) => name).filter((name) => !moved.has(name) && !ELSEWHERE.has(name));
    expect(still).toEqual([]);
  });

  test.each([
    'derp_packets_received_kind{kind="disco"}',
    'derp_packets_received_kind{kind="other"}',
    'derp_packets_dropped{reason="unknown_dest",kind="disco"}',
    'derp_packets_dropped{reason="unknown_dest_on_fwd",kind="other"}',
    'derp_bytes_dropped{reason="queue_head",kind="other"}',
    'derp_tcp_rtt{le="10ms"}',
    'derp_tcp_rtt{le="non-tcp"}',
    'derplane_closed_connections_total{reason="eof"}',
    'derplane_closed_connections_total{reason="insufficient_permissions"}',
    'derplane_handshakes_total{outcome="ok"}',
    'derplane_handshakes_total{outcome="bad_first_frame"}',
    'derplane_shard_packets_sent_total{shard="0"}',
    'derplane_shard_packets_sent_total{shard="1"}',
  ])('%s has moved', (name) => expect(peak.get(name)).toBeGreaterThan(0));

  test('the shards together are the relay', () => {
    for (const name of ['packets_received', 'packets_sent', 'bytes_received', 'bytes_sent']) {
      const sum = [0, 1].reduce(
        (total, shard) => total + last.get(`derplane_shard_${name}_total{shard="${shard}"}`)!,
        0,
      );
      expect([name, sum]).toEqual([name, last.get(`derp_${name}`)]);
    }
  });
});

type Look = () => Promise<Map<string, number>>;

function familyOf(key: string): string {
  return key.replace(/\{.*/, '').replace(/_(?:bucket|sum|count)$/, '');
}

/** Drives a relay of two shards through what it counts; `look` reads all figures meanwhile. */
async function everything(relay: TestRelay, look: Look): Promise<void> {
  const [a, b] = await relay.pair('across shards');
  await packets(relay, a, b);
  await look();
  await mesh(relay, a, look);
  await forwarders(relay, a, look);
  await handshakes(relay);
  await throughStream(relay, () => relay.untilCounter(['counter_tcp_rtt', 'non-tcp'], (value) => value === 1));
  await limited(relay, a, b, look);
  await slowReader(relay, a, look);
  await relay.untilCounter(['counter_tcp_rtt', '10ms'], (value) => value > 0);
  await relay.untilAllAccountedFor();
  // Whole seconds: this process may be younger than one.
  while ((await look()).get('uptime_sec') === 0);
}

async function packets(relay: TestRelay, a: RawClient, b: RawClient): Promise<void> {
  await a.send(b.publicKey, discoPacket());
  await b.expectPacket();
  await b.send(a.publicKey, patterned(100));
  await a.expectPacket();
  await a.send(PrivateKey.generate().publicKey, discoPacket('nobody'));
  await a.expectPeerGone();
  await a.write(Buffer.concat([frame(0x7f, Buffer.alloc(3)), frame(Frame.notePreferred, Buffer.of(1))]));
  await a.settle();
  await relay.connect({ lines: ['Upgrade: DERP', 'Connection: Upgrade', 'Ideal-Node: 1a'] });
  const twin = PrivateKey.generate();
  await relay.connect({ key: twin });
  await relay.connect({ key: twin });
}

async function mesh(relay: TestRelay, a: RawClient, look: Look): Promise<void> {
  const watcher = await relay.connect({ meshKey: MESH_KEY });
  await watcher.write(frame(Frame.watchConns));
  await watcher.expectFrame(Frame.peerPresent);
  const remote = PrivateKey.generate().publicKey;
  await watcher.write(forwardPacketFrame(remote, a.publicKey, patterned(10)));
  await a.expectPacket();
  await watcher.write(forwardPacketFrame(remote, PrivateKey.generate().publicKey, patterned(10)));
  await relay.untilDropped('unknown_dest_on_fwd', 'other', (value) => value > 0);
  const leaving = await relay.connect();
  leaving.stream.end();
  await relay.untilCounter(['peer_gone_disconnected_frames'], (value) => value > 0);
  await look();
}

async function forwarders(relay: TestRelay, a: RawClient, look: Look): Promise<void> {
  const key = PrivateKey.generate().publicKey;
  const [one, two, other] = [0, 1, 2].map(() => ({ forwardPacket: () => undefined }));
  relay.server.addPacketForwarder(key, one!);
  relay.server.addPacketForwarder(key, two!);
  relay.server.removePacketForwarder(key, other!);
  await relay.untilCounter(['gauge_clients_total'], (value) => value > relay.counter('gauge_clients_local'));
  await a.send(key, patterned(10));
  await relay.untilCounter(['packets_forwarded_out'], (value) => value > 0);
  await look();
  relay.server.removePacketForwarder(key, one!);
  relay.server.removePacketForwarder(key, two!);
}

async function handshakes(relay: TestRelay): Promise<void> {
  const bad = await relay.dial();
  await bad.write(Buffer.concat([upgradeHead(), frame(Frame.ping, Buffer.alloc(8))]));
  await relay.untilCounter(['handshakes_failed', 'bad_first_frame'], (value) => value > 0);
  const stranger = await relay.connect();
  await stranger.write(frame(Frame.watchConns));
  await stranger.expectClose();
}

/** Runs `body` while there is a client without TCP. */
async function throughStream(relay: TestRelay, body: () => Promise<unknown>): Promise<void> {
  const [ours, theirs] = duplexPair();
  const ended = relay.server.accept(theirs);
  const client = relay.track(new RawClient(ours));
  await client.handshake();
  await body();
  client.stream.end();
  await ended;
}

async function limited(relay: TestRelay, a: RawClient, b: RawClient, look: Look): Promise<void> {
  relay.server.setRateLimit(1);
  // The first may be read before the shard hears of the limit; the next one nearly empties the bucket.
  const packets = 4;
  for (let n = 0; n < packets; n++)
    a.push(frame(Frame.sendPacket, Buffer.concat([b.publicKey.bytes, patterned(65_000)])));
  await relay.untilCounter(['rate_limit_per_client_waited'], (value) => value > 0);
  await look();
  relay.server.setRateLimit(0);
  for (let n = 0; n < packets; n++) await b.expectPacket();
}

async function slowReader(relay: TestRelay, a: RawClient, look: Look): Promise<void> {
  const frozen = await relay.connect();
  frozen.freeze();
  // Goes on until packets were dropped that had waited a whole millisecond.
  while (relay.counter('average_queue_duration_ms') === 0) await a.send(frozen.publicKey, patterned(65_000));
  await look();
  frozen.destroy();
}

describe('the average of queue times', () => {
  test('falls to nothing when everybody keeps up again', () =>
    withRelay({ shards: 1, queues: { depth: 4 }, timeouts: { write: 0 } }, async (relay) => {
      const [a, b] = await relay.pair('on one shard');
      await slowReader(relay, a, async () => new Map());
      for (let n = 0; n < 400; n++) await a.send(b.publicKey, patterned(10));
      for (let n = 0; n < 400; n++) await b.expectPacket();
      await relay.untilCounter(['average_queue_duration_ms'], (value) => value < 1);
    }));
});

describe('round-trip times', () => {
  test('are not measured when that is turned off', () =>
    withRelay({ shards: 1, timeouts: { rttInterval: 0 } }, async (relay) => {
      const client = await relay.connect();
      await client.settle();
      await throughStream(relay, () => client.settle());
      expect(relay.counter('counter_tcp_rtt', '10ms')).toBe(0);
      expect(relay.counter('counter_tcp_rtt', 'non-tcp')).toBe(0);
    }));

  test('are measured again and again', () =>
    withRelay({ shards: 1, timeouts: { rttInterval: 10, keepAliveInterval: 1_000 } }, async (relay) => {
      await relay.connect();
      await relay.untilCounter(['counter_tcp_rtt', '10ms'], (value) => value >= 5);
    }));
});

describe('connections that say nothing', () => {
  test('are in progress, and beyond the bound refused or ended', () =>
    withRelay({ shards: 1, handshake: { maxPending: 2 } }, async (relay) => {
      const waiting = [await relay.dial(), await relay.dial()];
      await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 2);
      await relay.untilCounter(['gauge_handshakes_waiting'], (value) => value === 0);
      const sum = () =>
        relay.counter('refused_connections', 'handshakes') + relay.counter('evicted_connections', 'handshakes');
      for (let n = 1; n <= 3; n++) {
        waiting.push(await relay.dial());
        await expect.poll(sum).toBe(n);
      }
      for (const client of waiting) client.destroy();
      await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
    }));

  test('are refused when they hold too many bytes', () =>
    withRelay({ shards: 1, handshake: { maxBytes: 64 } }, async (relay) => {
      const client = await relay.dial();
      await client.write(upgradeHead({ lines: [`X: ${'x'.repeat(4000)}`] }));
      await client.expectClose();
      await relay.untilCounter(['refused_connections', 'handshake_bytes'], (value) => value === 1);
    }));
});
