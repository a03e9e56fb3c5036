import { PrivateKey, Server } from 'derplane';
import { describe, expect, test } from 'vitest';
import { ask, withMetrics } from './support/debug_server.js';
import { Frame, frame } from './support/raw_client.js';
import { type TestRelay, withRelay } from './support/relay.js';

interface Page {
  query: string;
  conns: number;
  keys: number;
  remaining: number;
  next?: string;
  clients: Record<string, unknown>[];
}

/** The JSON at /debug/clients/ of a query. */
async function page(port: number, query: string): Promise<Page> {
  const { status, body, headers } = await ask(port, `/debug/clients/${query}`);
  expect([status, headers['content-type']], body).toEqual([200, 'application/json']);
  return JSON.parse(body) as Page;
}

/** Three keys with four connections: `a` sends two packets to `b`, which calls the relay its home; `c` has two connections. */
async function crowd(relay: TestRelay) {
  const { meshKey } = relay.server;
  const a = await relay.connect();
  const b = await relay.connect();
  const key = PrivateKey.generate();
  const c = [await relay.connect({ key }), await relay.connect({ key, ...(meshKey && { meshKey }) })];
  await b.write(frame(Frame.notePreferred, Buffer.from([1])));
  await a.send(b.publicKey, Buffer.alloc(100));
  await a.send(b.publicKey, Buffer.alloc(20));
  await b.expectPacket();
  await b.expectPacket();
  await b.settle();
  return { a, b, c, keyOfC: key.publicKey };
}

describe.each([1, 4])('/debug/clients/ of a relay with %d shards', (shards) => {
  test('tells of each connection who it is and what it moved', () =>
    withRelay({ shards, mesh: { key: 'ab'.repeat(32) } }, (relay) =>
      withMetrics({ relay: relay.server }, async (port) => {
        const { a, b, keyOfC } = await crowd(relay);
        const before = Date.now();
        const { clients, ...totals } = await page(port, '?all&format=json&sort=conn');
        expect(totals).toEqual({ query: 'all clients', conns: 4, keys: 3, remaining: 0 });
        expect(clients[0]).toEqual({
          connNum: 1,
          key: a.publicKey.toString(),
          remote: `127.0.0.1:${a.socket.localPort}`,
          connectedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z$/),
          connected: expect.any(Number),
          active: true,
          dup: false,
          disabled: false,
          home: false,
          meshPeer: false,
          notIdeal: false,
          prober: false,
          version: 2,
          appName: '',
          rxPkts: 2,
          rxBytes: 120,
          txPkts: 0,
          txBytes: 0,
          senders: 0,
        });
        expect((clients[0]!['connected'] as number) % 1e9).toBe(0);
        expect(Math.abs(Date.parse(clients[0]!['connectedAt'] as string) - before)).toBeLessThan(60_000);
        expect(clients[1]).toMatchObject({ key: b.publicKey.toString(), home: true, txPkts: 2, txBytes: 120 });
        expect(clients.slice(2)).toMatchObject([
          { key: keyOfC.toString(), active: false, dup: true, meshPeer: false },
          { key: keyOfC.toString(), active: true, dup: true, meshPeer: true },
        ]);
      }),
    ));

  test('gives pages in every order that together are the whole list, each with a link to the next', () =>
    withRelay({ shards }, (relay) =>
      withMetrics({ relay: relay.server }, async (port) => {
        await crowd(relay);
        for (let n = 0; n < 9; n++) await relay.connect();
        for (const column of ['key', 'ip', 'conn', 'connected', 'rx', 'tx', 'rxpkts', 'txpkts']) {
          const orders: unknown[][] = [];
          for (const sort of [column, `-${column}`]) {
            const found: unknown[] = [];
            let next: string | undefined = `?all&format=json&limit=3&sort=${sort}`;
            while (next !== undefined) {
              const answer: Page = await page(port, next);
              found.push(...answer.clients.map((client) => client['connNum']));
              expect(answer).toMatchObject({ conns: 13, keys: 12, remaining: 13 - found.length });
              next = answer.next;
            }
            expect([...found].sort((x, y) => Number(x) - Number(y))).toEqual(
              Array.from({ length: 13 }, (_, i) => i + 1),
            );
            orders.push(found);
          }
          expect(orders[1], column).toEqual([...orders[0]!].reverse());
        }
      }),
    ));

  test('finds by key, address, network and app name', () =>
    withRelay({ shards }, (relay) =>
      withMetrics({ relay: relay.server }, async (port) => {
        const { keyOfC } = await crowd(relay);
        const count = async (query: string) => {
          const { query: title, conns, keys, clients } = await page(port, `?${query}&format=json`);
          expect(clients).toHaveLength(conns);
          return [title, conns, keys];
        };
        expect(await count(`key=${keyOfC}`)).toEqual([`connections for ${keyOfC}`, 2, 1]);
        expect(await count(`key=nodekey:${'0'.repeat(64)}`)).toEqual([
          `connections for nodekey:${'0'.repeat(64)}`,
          0,
          0,
        ]);
        expect(await count('ip=::ffff:127.0.0.1')).toEqual(['clients from 127.0.0.1', 4, 3]);
        expect(await count('ip=127.0.0.2')).toEqual(['clients from 127.0.0.2', 0, 0]);
        expect(await count('cidr=127.9.9.9/8')).toEqual(['clients from 127.0.0.0/8', 4, 3]);
        expect(await count('cidr=::/0')).toEqual(['clients from ::/0', 0, 0]);
        expect(await count('ip=fe80::1%25eth0')).toEqual(['clients from fe80::1%eth0', 0, 0]);
        expect(await count('app=')).toEqual(['all clients with app (none)', 4, 3]);
        expect(await count('app=x&app=y')).toEqual(['all clients with app x or y', 0, 0]);
        expect(JSON.parse((await ask(port, '/debug/clients/?format=json')).body)).toEqual({ conns: 4, keys: 3 });
      }),
    ));
});

/** Runs `body` with a relay that it may close. */
async function withServer(body: (server: Server) => Promise<void>): Promise<void> {
  const server = new Server(PrivateKey.generate(), { shards: 2, handshake: { threads: 1 } });
  try {
    await body(server);
  } finally {
    await server.close();
  }
}

const withOne = (body: (port: number, server: Server) => Promise<void>) =>
  withRelay({ shards: 1 }, ({ server }) => withMetrics({ relay: server }, (port) => body(port, server)));

test.each([
  ['ip=1.2.3.4&all', 'only one of all, ip, cidr, or key may be given'],
  ['all&limit=0', 'bad limit "0"'],
  ['all&limit=1e9', 'bad limit "1e9"'],
  ['all&sort=-', 'bad sort "-"; want key, ip, conn, connected, rx, tx, rxpkts, or txpkts, optionally with a leading -'],
  ['format=xml', 'bad format "xml"; want json or html'],
  ['key=x', `bad key "x": key hex string doesn't have expected type prefix nodekey:`],
  ['ip=x', 'bad ip "x": ParseAddr("x"): unable to parse IP'],
  ['cidr=1.2.3.4/33', 'bad cidr "1.2.3.4/33": netip.ParsePrefix("1.2.3.4/33"): prefix length out of range'],
  ['all&after=x', `bad after "x" for sort by key: key hex string doesn't have expected type prefix nodekey:`],
  ['all&sort=ip&after=x', 'bad after "x" for sort by ip: not an ip:port'],
  ['all&sort=tx&after=-1', 'bad after "-1" for sort by tx: strconv.ParseUint: parsing "-1": invalid syntax'],
  ['all&sort=connected&after=x', 'bad after "x" for sort by connected; want Unix nanoseconds or a duration'],
  ['all&sort=ip&after=::1&afterconn=x', 'bad afterconn "x": strconv.ParseInt: parsing "x": invalid syntax'],
])('%s is answered 400, and says why', (query, text) =>
  withOne(async (port) => {
    const { status, body, headers } = await ask(port, `/debug/clients/?${query}`);
    expect([status, body]).toEqual([400, `${text}\n`]);
    expect(headers['content-type']).toBe('text/plain; charset=utf-8');
  }),
);

test('a port in a cursor may begin with zeros', () =>
  withOne(async (port) => {
    for (const place of ['192.0.2.1:000443', '[2001:db8::1]:000443']) {
      const { status } = await ask(port, `/debug/clients/?all&sort=ip&after=${encodeURIComponent(place)}`);
      expect(status).toBe(200);
    }
  }));

test('pages, any method and any path below', () =>
  withOne(async (port) => {
    expect((await ask(port, '/debug/clients')).headers.location).toBe('/debug/clients/');
    expect((await ask(port, '/debug/clients/')).body).toContain('<p>0 connections for 0 node keys.</p>');
    const { status, body } = await ask(port, '/debug/clients/x/y?all&app=%3Cb%3E', 'POST');
    expect(status).toBe(200);
    expect(body).toContain('<h1>DERP clients: all clients with app &lt;b&gt;</h1>');
    expect(body).toContain('Showing 0 of 0 matching connections (0 node keys).');
    expect(body).toContain('<th><a href="?all=1&amp;app=%3Cb%3E&amp;sort=-rx">rx bytes</a></th>');
  }));

test('senders are shown only where they are asked for', () =>
  withRelay({ shards: 2 }, (relay) =>
    withMetrics({ relay: relay.server, senderCardinality: true }, async (port) => {
      const { b } = await crowd(relay);
      expect((await page(port, `?key=${b.publicKey}&format=json`)).clients).toMatchObject([{ senders: 1 }]);
    }),
  ));

describe('Server.clients', () => {
  test('gives typed pages', () =>
    withRelay({ shards: 2 }, async (relay) => {
      const { a, b } = await crowd(relay);
      const { server } = relay;
      const first = await server.clients({ sort: 'rx', descending: true, limit: 1 });
      expect(first).toMatchObject({ connections: 4, keys: 3, remaining: 3, next: { value: 120n, number: 1 } });
      expect(first.clients[0]).toMatchObject({ key: a.publicKey, receivedBytes: 120, isActive: true, number: 1 });
      const rest = await server.clients({ sort: 'rx', descending: true, after: first.next! });
      expect(rest.clients.map(({ number }) => number)).toEqual([4, 3, 2]);
      expect(rest.next).toBeUndefined();
      const found = await server.clients({ key: b.publicKey });
      expect(found.clients).toMatchObject([{ sentPackets: 2, isHome: true, uniqueSenders: 1 }]);
    }));

  test('answers one question at a time and refuses more than may wait; closing ends them', () =>
    withServer(async (server) => {
      const answers = await Promise.allSettled(Array.from({ length: 40 }, () => server.clients()));
      const refused = answers.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
      expect(refused).toHaveLength(40 - 17);
      expect(refused[0]!.reason).toMatchObject({ code: 'ERR_DERP_BUSY' });
      const late = Promise.allSettled(Array.from({ length: 10 }, () => server.clients()));
      await server.close();
      for (const answer of await late) {
        if (answer.status === 'rejected') expect(answer.reason).toMatchObject({ code: 'ERR_DERP_CLOSED' });
      }
      await expect(server.clients()).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
    }));
});
