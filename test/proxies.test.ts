/** Trusted proxies: what they say of a client's address counts, and what others say does not. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { createPageServer, debugPages, PrivateKey, type ServerOptions } from 'derplane';
import { describe, expect, test } from 'vitest';
import { TrustedProxies } from '../dist/proxies.js';
import { end, listen } from './support/debug_server.js';
import { RawClient, upgradeHead } from './support/raw_client.js';
import { type TestRelay, withRelay } from './support/relay.js';

const V1 = Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 32853 443\r\n');
const V1_UNKNOWN = Buffer.from('PROXY UNKNOWN\r\n');
const V1_IPV6 = Buffer.from('PROXY TCP6 2001:db8::7 ::1 5 443\r\n');

function v2(command: number, family: number, rest: Buffer): Buffer {
  const head = Buffer.from('\r\n\r\n\0\r\nQUIT\n    ', 'latin1');
  head[12] = command;
  head[13] = family;
  head.writeUInt16BE(rest.length, 14);
  return Buffer.concat([head, rest]);
}

const V2 = v2(0x21, 0x11, Buffer.from('c00002080a0000010123 01bb'.replace(' ', ''), 'hex'));
const V2_LOCAL = v2(0x20, 0x00, Buffer.alloc(0));

async function dial(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  return socket;
}

/** The address that the relay has of a client which sends `header` first, then upgrades with `lines`. */
async function addressBehind(relay: TestRelay, header: Uint8Array, lines: string[] = []): Promise<string> {
  const connected = once(relay.server, 'clientConnected');
  const socket = await dial(relay.port);
  if (header.length > 0) socket.write(header);
  let client = new RawClient(socket);
  if (relay.tls !== undefined) {
    const secure = connectTls({ socket, rejectUnauthorized: false, servername: 'derp.example.com' });
    await once(secure, 'secureConnect');
    client = new RawClient(secure, PrivateKey.generate(), socket);
  }
  await relay.track(client).open({ lines: ['Upgrade: DERP', 'Connection: Upgrade', ...lines] });
  const [{ address }] = (await connected) as [{ address: string }];
  expect((await relay.server.clients({ key: client.publicKey })).clients[0]?.address).toBe(address);
  return address;
}

const trusting = (tls: boolean, options: Partial<ServerOptions> = {}) => ({
  shards: 1,
  trustProxy: ['127.0.0.0/8', '198.51.100.0/24'],
  ...options,
  ...(tls && { tls }),
});

describe.each([false, true])('a trusted proxy, TLS: %s', (tls) => {
  test.each([
    ['version 1', V1, '192.0.2.7:32853'],
    ['version 1 of IPv6', V1_IPV6, '[2001:db8::7]:5'],
    ['version 2', V2, '192.0.2.8:291'],
  ])('tells the client by a PROXY header of %s', (_, header, address) =>
    withRelay(trusting(tls), async (relay) => {
      expect(await addressBehind(relay, header)).toBe(address);
    }),
  );

  test.each([
    ['no header', Buffer.alloc(0)],
    ['LOCAL', V2_LOCAL],
    ['UNKNOWN', V1_UNKNOWN],
  ])('with %s is the client itself', (_, header) =>
    withRelay(trusting(tls), async (relay) => {
      expect(await addressBehind(relay, header)).toMatch(/^127\.0\.0\.1:/);
    }),
  );

  test.each([
    [['X-Forwarded-For: 203.0.113.5'], '203.0.113.5:PORT'],
    [['X-Forwarded-For: 1.1.1.1, 203.0.113.5'], '203.0.113.5:PORT'],
    [['X-Forwarded-For: 1.1.1.1, 203.0.113.5, 198.51.100.9'], '203.0.113.5:PORT'],
    [['X-Forwarded-For: 1.1.1.1', 'X-Forwarded-For: 203.0.113.5'], '203.0.113.5:PORT'],
    [['X-Forwarded-For: 2001:db8::5'], '[2001:db8::5]:PORT'],
    [['X-Forwarded-For: [2001:db8::5]:443'], '[2001:db8::5]:PORT'],
    [['X-Real-IP: 203.0.113.6'], '203.0.113.6:PORT'],
    [['X-Forwarded-For: 203.0.113.5', 'X-Real-IP: 203.0.113.6'], '203.0.113.5:PORT'],
  ])('tells the client by %j', (lines, address) =>
    withRelay(trusting(tls), async (relay) => {
      const found = await addressBehind(relay, Buffer.alloc(0), lines);
      // The port is that of the proxy's connection.
      expect(found.replace(/:[1-9]\d*$/, ':PORT')).toBe(address);
    }),
  );

  test('by a PROXY header names a client whose own headers do not count', () =>
    withRelay(trusting(tls), async (relay) => {
      expect(await addressBehind(relay, V1, ['X-Forwarded-For: 203.0.113.5'])).toBe('192.0.2.7:32853');
    }));

  test('by a PROXY header names a proxy that is trusted, too, whose headers count', () =>
    withRelay(trusting(tls), async (relay) => {
      const inner = Buffer.from('PROXY TCP4 198.51.100.1 10.0.0.1 1 2\r\n');
      expect(await addressBehind(relay, inner, ['X-Forwarded-For: 203.0.113.5'])).toMatch(/^203\.0\.113\.5:[1-9]\d*$/);
    }));

  test('whose header is malformed loses the connection, which is counted', () =>
    withRelay(trusting(tls), async (relay) => {
      const socket = await dial(relay.port);
      socket.write('PROXY TCP4 nonsense\r\n');
      await once(socket.resume(), 'close');
      await relay.untilCounter(['handshakes_failed', 'proxy'], (count) => count === 1);
    }));

  test('that sends half a header keeps nobody, and its connection ends by the deadline', () =>
    withRelay(trusting(tls, { handshake: { requestTimeout: 200 } }), async (relay) => {
      const socket = await dial(relay.port);
      socket.write(V2.subarray(0, 14));
      await addressBehind(relay, V1);
      await once(socket.resume(), 'close');
    }));

  test('may send its header byte by byte', () =>
    withRelay(trusting(tls), async (relay) => {
      const socket = await dial(relay.port);
      socket.setNoDelay(true);
      for (const byte of V1) await new Promise<void>((resolve) => socket.write(Uint8Array.of(byte), () => resolve()));
      if (tls) {
        const secure = connectTls({ socket, rejectUnauthorized: false, servername: 'derp.example.com' });
        await once(secure, 'secureConnect');
        await relay.track(new RawClient(secure, PrivateKey.generate(), socket)).open();
      } else {
        await relay.track(new RawClient(socket)).open();
      }
    }));
});

describe('anyone else', () => {
  const options = { shards: 1, trustProxy: ['192.0.2.0/24'] };

  test.each(['X-Forwarded-For: 203.0.113.5', 'X-Real-IP: 203.0.113.5'])('is not believed: %s', (line) =>
    withRelay(options, async (relay) => {
      expect(await addressBehind(relay, Buffer.alloc(0), [line])).toMatch(/^127\.0\.0\.1:/);
    }),
  );

  test.each([
    ['version 1', V1],
    ['version 2', V2],
  ])('is refused with a PROXY header of %s, as with any other malformed request', (_, header) =>
    withRelay({ ...options, tls: false }, async (relay) => {
      const socket = await dial(relay.port);
      socket.write(Buffer.concat([header, upgradeHead()]));
      let answer = '';
      for await (const chunk of socket.setEncoding('latin1')) answer += chunk;
      expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    }),
  );
});

test("the source's share of handshakes is that of the client, not of its proxy", () =>
  withRelay(
    {
      ...trusting(false),
      tls: false,
      handshake: { maxPendingPerSource: 4, firstByteTimeout: 60_000, requestTimeout: 60_000 },
    },
    async (relay) => {
      const sockets: Socket[] = [];
      for (let i = 0; i < 24; i++) {
        const socket = await dial(relay.port);
        socket.on('error', () => {}).resume();
        socket.write(
          Buffer.concat([Buffer.from(`PROXY TCP4 203.0.113.${i} 10.0.0.1 1 2\r\n`), Buffer.from('GET /derp')]),
        );
        sockets.push(socket);
      }
      await relay.untilCounter(['gauge_handshakes_in_progress'], (count) => count === 24);
      expect(relay.server.expVar().evicted_connections).toMatchObject({ source_share: 0 });
      for (const socket of sockets) socket.destroy();
    },
  ));

describe('pages', () => {
  const request = (path: string, ...lines: string[]) =>
    [`GET ${path} HTTP/1.1`, 'Host: x', 'Connection: close', ...lines, '', ''].join('\r\n');

  async function status(port: number, bytes: string | Uint8Array): Promise<number> {
    const socket = await dial(port);
    socket.write(bytes);
    let answer = '';
    for await (const chunk of socket.setEncoding('latin1')) answer += chunk;
    return Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]);
  }

  const TAILNET = 'PROXY TCP4 100.64.0.9 10.0.0.1 1 2\r\n';
  const cases: [name: string, bytes: string, status: number][] = [
    ['a client on loopback', request('/debug/'), 200],
    ['a client of the tailnet, by a PROXY header', TAILNET + request('/debug/'), 200],
    ['a stranger, by a PROXY header', V1.toString('latin1') + request('/debug/'), 403],
    ['a client of the tailnet, by X-Forwarded-For', request('/debug/', 'X-Forwarded-For: 8.8.8.8, 100.64.0.9'), 200],
    ['a stranger, by X-Forwarded-For', request('/debug/', 'X-Forwarded-For: 100.64.0.9, 8.8.8.8'), 403],
    ['a stranger, by X-Real-IP', request('/debug/', 'X-Real-IP: 8.8.8.8'), 403],
  ];

  test.each(cases)('of a page server know %s', async (_, bytes, expected) => {
    const server = createPageServer({ debug: debugPages(), trustProxy: ['127.0.0.1'] });
    const port = await listen(server);
    expect(await status(port, bytes).finally(() => end(server))).toBe(expected);
  });

  test.each(cases)("of a relay's listener know %s", (_, bytes, expected) =>
    withRelay({ ...trusting(false), tls: false }, async ({ server }) => {
      const pages = createPageServer({ debug: debugPages(), trustProxy: ['127.0.0.1'] });
      const { port } = await server.listen({ host: '127.0.0.1', port: 0, httpServer: pages });
      expect(await status(port, bytes)).toBe(expected);
    }),
  );

  test('without trust are denied to whoever says that he was passed on', async () => {
    const server = createPageServer({ debug: debugPages() });
    const port = await listen(server);
    const denied = request('/debug/', 'X-Forwarded-For: 100.64.0.9');
    expect(await status(port, denied).finally(() => end(server))).toBe(403);
  });

  test('of a page server end a connection whose header is malformed', async () => {
    const server = createPageServer({ trustProxy: ['127.0.0.1'] });
    const port = await listen(server);
    const socket = await dial(port);
    socket.on('error', () => {});
    socket.write('PROXY TCP9\r\n');
    await once(socket.resume(), 'close').finally(() => end(server));
  });
});

describe('the client of a chain of proxies', () => {
  const proxies = new TrustedProxies(['10.0.0.0/8', '2001:db8::/32']);
  test.each([
    ['10.0.0.1', 'a, 203.0.113.5', '203.0.113.5'],
    ['10.0.0.1', 'nonsense', undefined],
    ['10.0.0.1', '203.0.113.5, nonsense, 10.0.0.2', '10.0.0.2'],
    ['10.0.0.1', '10.0.0.3, 10.0.0.2', '10.0.0.3'],
    ['10.0.0.1', '::ffff:203.0.113.5', '203.0.113.5'],
    ['2001:db8::1', '203.0.113.5', '203.0.113.5'],
    ['203.0.113.1', '203.0.113.5', undefined],
    ['', '203.0.113.5', undefined],
  ])('that %s passed on with %j is %s', (from, forwarded, client) => {
    expect(proxies.clientOf(from, [['X-Forwarded-For', forwarded]])).toBe(client);
  });
});
