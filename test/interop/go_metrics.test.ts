/** The figures of derper and of derplane after the same traffic: the same names, types, labels and values. */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type ConnectionOptions, connect } from 'node:tls';
import { PrivateKey } from 'derplane';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startDerplane } from '../support/derplane.js';
import {
  GO_DERPER_TIMEOUT,
  GO_DERPER_VERSION,
  goDerperMissing,
  newestDerperMissing,
  startGoDerper,
} from '../support/go_derper.js';
import { freePort } from '../support/ports.js';
import { type Family, parsePrometheus } from '../support/prometheus.js';
import { discoPacket, Frame, forwardPacketFrame, frame, RawClient, upgradeHead } from '../support/raw_client.js';
import { patterned } from '../support/relay.js';

const MESH_KEY = 'a1'.repeat(32);
const IP = '127.0.0.1';
const INSECURE: ConnectionOptions = { rejectUnauthorized: false };

interface Relay {
  port: number;
  close(): Promise<void>;
}

let folder: string;
const clients: RawClient[] = [];

function flags(): string[] {
  return ['-mesh-psk-file', join(folder, 'psk'), '-rate-config', join(folder, 'rate.json')];
}

async function startOurs(shards: number): Promise<Relay> {
  const certificates = ['-certmode', 'manual', '-certdir', folder, '-hostname', IP, '-http-port', '-1'];
  const own = ['-a', `${IP}:0`, '-c', join(folder, 'ours.key'), '-stun-port=0', '-shards', String(shards)];
  const relay = await startDerplane([...own, ...certificates, ...flags()]);
  return {
    port: relay.port,
    close: async () => {
      relay.kill('SIGKILL');
      await relay.ended;
    },
  };
}

async function startTheirs(newest: boolean): Promise<Relay> {
  // Of a flag that comes twice the last counts.
  const args = [...flags(), '-stun', '-stun-port', String(await freePort(IP))];
  return startGoDerper({ newest, args, tls: { hostname: IP, folder } });
}

async function page(port: number, path: string, options: ConnectionOptions = {}): Promise<string> {
  const asked = get({ host: IP, port, path, agent: false, ...INSECURE, ...options });
  const [response] = await once(asked, 'response');
  return text(response);
}

/** Metrics that derper and derplane both should have. */
const COMPARED = /^(?:derp_|derper_|tls_listener_|stun_|bootstrap_dns_|uptime_sec|version|process_|node_boot)/;

/** Intended differences: ours besides; what derper never counts. */
const ONE_SIDED = /^(?:process_cpu_(?:user|system)_seconds_total|process_heap_bytes|derp_unknown_frames)/;

/** Figures whose values depend on the machine and the moment. */
const VALUE_DIFFERS =
  /^(?:derp_memstats_sys0|derp_current_file_descriptors|derp_average_queue_duration_ms|derp_tcp_rtt|process_|node_boot|uptime|version)/;

async function families(port: number): Promise<Map<string, Family>> {
  const all = parsePrometheus(withHelp(await page(port, '/debug/varz')));
  return new Map([...all].filter(([name]) => COMPARED.test(name)));
}

/** derper leaves out the help of most metrics, and the type of some. */
function withHelp(body: string): string {
  const lines: string[] = [];
  let family = '';
  for (const line of body.split('\n').filter((line) => line !== '' && !/^# (?:HELP|skipping)/.test(line))) {
    const [, name, type] = line.match(/^# TYPE (\S+) (\S+)/) ?? [];
    if (name !== undefined) {
      family = name;
      lines.push(`# HELP ${name} x`, `# TYPE ${name} ${type}`);
      continue;
    }
    const sample = line.match(/^\w+/)![0];
    if (family === '' || (sample !== family && !new RegExp(`^${family}_(?:bucket|sum|count)$`).test(sample))) {
      family = sample;
      lines.push(`# HELP ${sample} x`, `# TYPE ${sample} untyped`);
    }
    lines.push(line);
  }
  return lines.join('\n');
}

type Values = Record<string, number>;

interface Figures {
  types: Record<string, string>;
  values: Values;
  /** Paths of the figures in the JSON page. */
  paths: string[];
}

/** By name and labels. Zeros are left out, since derper shows most labels only once they were used. */
function values(found: Map<string, Family>): Values {
  const all = [...found.values()].flatMap(({ samples }) => [...samples]);
  return Object.fromEntries(
    all.filter(([key, value]) => value !== 0 && !VALUE_DIFFERS.test(key) && !ONE_SIDED.test(key)),
  );
}

/** Names with their types. */
function types(found: Map<string, Family>): Record<string, string> {
  const all = [...found].filter(([name]) => !ONE_SIDED.test(name));
  return Object.fromEntries(all.map(([name, { type }]) => [name, type]));
}

async function open(port: number, options: Parameters<RawClient['open']>[0] & { key?: PrivateKey; tls?: object } = {}) {
  const { key, tls, ...rest } = options;
  const client = await RawClient.connect({ port, ...(key && { key }), tls: { ...INSECURE, ...tls } });
  clients.push(client);
  return client.open(rest);
}

/** Figures of the JSON page that derper shows only once they moved, and what is of one side only. */
const NOT_IN_BOTH =
  /^(?:derplane|nodejs_|memstats|go_|gauge_goroutines|gauge_goamd64|cmdline)|_dropped|counter_tcp_rtt/;

async function jsonPaths(port: number): Promise<string[]> {
  const pathsOf = (value: unknown, path: string): string[] =>
    typeof value === 'object' && value !== null
      ? Object.entries(value).flatMap(([name, inner]) => pathsOf(inner, path === '' ? name : `${path}/${name}`))
      : [path];
  return pathsOf(JSON.parse(await page(port, '/debug/vars')), '')
    .filter((path) => !NOT_IN_BOTH.test(path))
    .sort();
}

/** Without names to answer: each is a request, and those that ask for a name also miss. */
const BOOTSTRAP = ['', '?q=one.example', '?q=two.example', '?q=one.example'].map((query) => `/bootstrap-dns${query}`);

const REQUESTS = 'derper_tls_request_version{version="1.3"}';
const ACCEPTED = 'tls_listener_accepted_connections';

/**
 * Looks until two looks in a row see the same. Neither looks count, nor the connections by which the start was awaited.
 *
 * @param first - connections that were accepted before the traffic, the look that told so included
 */
async function settled(port: number, first: number): Promise<Figures> {
  let before = '';
  for (let looks = 1; ; looks++) {
    const found = await families(port);
    const seen = values(found);
    seen[REQUESTS]! -= looks;
    seen[ACCEPTED]! -= first + looks;
    if (JSON.stringify(seen) === before) return { types: types(found), values: seen, paths: await jsonPaths(port) };
    before = JSON.stringify(seen);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

/** What clients do, each step awaited, so that both relays do the same. */
async function traffic(port: number): Promise<void> {
  const [a, b] = [await open(port), await open(port, { fastStart: true })];
  const old = await open(port, { tls: { maxVersion: 'TLSv1.2' } });
  for (let n = 0; n < 10; n++) {
    await a.send(b.publicKey, patterned(100));
    await b.expectPacket();
  }
  await b.send(old.publicKey, discoPacket());
  await old.expectPacket();
  await a.send(PrivateKey.generate().publicKey, discoPacket('nobody'));
  await a.expectPeerGone();
  await a.write(Buffer.concat([frame(0x7f, Buffer.alloc(3)), frame(Frame.notePreferred, Buffer.of(1))]));
  await a.settle();
  await open(port, { lines: ['Upgrade: DERP', 'Connection: Upgrade', 'Ideal-Node: 1a'] });
  await duplicates(port);
  const watcher = await mesh(port, a);
  const stranger = await open(port);
  await watcher.expectFrame(Frame.peerPresent);
  await stranger.write(frame(Frame.watchConns));
  await stranger.expectClose();
  await watcher.expectFrame(Frame.peerGone);
  await unfinished(port);
  for (const path of ['/', '/derp/probe', '/generate_204', '/nowhere', ...BOOTSTRAP]) await page(port, path);
  await page(port, '/', { maxVersion: 'TLSv1.2' });
}

async function duplicates(port: number): Promise<void> {
  const key = PrivateKey.generate();
  const [first, second] = [await open(port, { key }), await open(port, { key })];
  await first.settle();
  await second.settle();
  const third = await open(port, { key });
  await third.settle();
  third.destroy();
}

async function mesh(port: number, a: RawClient): Promise<RawClient> {
  const watcher = await open(port, { meshKey: MESH_KEY });
  await watcher.write(frame(Frame.watchConns));
  for (let n = 0; n < 6; n++) await watcher.expectFrame(Frame.peerPresent);
  const remote = PrivateKey.generate().publicKey;
  await watcher.write(forwardPacketFrame(remote, a.publicKey, patterned(10)));
  await a.expectPacket();
  await watcher.write(forwardPacketFrame(remote, PrivateKey.generate().publicKey, patterned(10)));
  const guest = await open(port);
  await watcher.expectFrame(Frame.peerPresent);
  guest.destroy();
  await watcher.expectFrame(Frame.peerGone);
  return watcher;
}

/** Connections that end before they are clients, and one that stays there. */
async function unfinished(port: number): Promise<void> {
  const silent = connect({ host: IP, port, ...INSECURE });
  await once(silent, 'secureConnect');
  silent.destroy();
  for (const bytes of [frame(Frame.ping, Buffer.alloc(8)), Buffer.alloc(0)]) {
    const client = await RawClient.connect({ port, tls: INSECURE });
    clients.push(client);
    await client.write(upgradeHead());
    await client.readHead();
    await client.readServerKey();
    if (bytes.length === 0) return;
    await client.write(bytes);
    await client.expectClose();
  }
}

async function figuresOf(relay: Relay): Promise<Figures> {
  try {
    const first = values(await families(relay.port))[ACCEPTED]!;
    await traffic(relay.port);
    return await settled(relay.port, first);
  } finally {
    for (const client of clients.splice(0)) client.destroy();
    await relay.close();
  }
}

/** Adds the names that derper has since 1.104. */
function withNewNames({ types, values, paths }: Figures): Figures {
  const names = { ...types, stun_no_local_addr: 'counter' };
  return { types: names, values, paths: [...paths, 'stun/counter_no_local_addr'].sort() };
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-go-metrics-'));
  await writeFile(join(folder, 'psk'), MESH_KEY);
  await writeFile(join(folder, 'rate.json'), '{}');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe.skipIf(goDerperMissing !== undefined || newestDerperMissing() !== undefined)(
  'figures after the same traffic',
  () => {
    const theirs = new Map<boolean, Figures>();

    beforeAll(async () => {
      theirs.set(false, withNewNames(await figuresOf(await startTheirs(false))));
      theirs.set(true, await figuresOf(await startTheirs(true)));
    }, GO_DERPER_TIMEOUT);

    describe.each([1, 2])('of derplane with %i shard(s) and of derper', (shards) => {
      let ours: Figures;
      beforeAll(async () => {
        ours = await figuresOf(await startOurs(shards));
      });

      describe.each([
        [GO_DERPER_VERSION, false],
        ['1.104.5', true],
      ])('%s', (_, newest) => {
        it('have the same names and types', () => expect(ours.types).toEqual(theirs.get(newest)!.types));

        it('stand at the same places in the JSON page', () => expect(ours.paths).toEqual(theirs.get(newest)!.paths));

        it('have the same values', () => expect(ours.values).toEqual(theirs.get(newest)!.values));
      });
    });
  },
);
