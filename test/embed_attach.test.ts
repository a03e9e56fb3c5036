/** A relay inside somebody's own HTTP server, by `attach`. */
import { once } from 'node:events';
import { createServer, type Server as HttpServer, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { connect as connectTls, type PSKCallbackNegotation, type TLSSocket } from 'node:tls';
import { PrivateKey, RelayClient, Server, type ServerOptions } from 'derplane';
import { describe, expect, it } from 'vitest';
import { clientInfoBody, Frame, frame, RawClient, sendPacketFrame, upgradeHead } from './support/raw_client.js';
import { patterned, SHARD_COUNTS } from './support/relay.js';

/** TLS without certificates, so that no test needs one. */
const psk: PSKCallbackNegotation = { psk: Buffer.alloc(32, 7), identity: 'test' };
const tlsOptions = { ciphers: 'PSK', maxVersion: 'TLSv1.2', pskCallback: () => psk.psk } as const;

const page: RequestListener = (request, response) => response.end(`page ${request.url}`);

describe.each(SHARD_COUNTS)('attached to an http.Server, a relay with %i shard(s)', (shards) => {
  it('serves the dialling client, beside the pages of its host', () =>
    withAttached({ shards }, createServer(page), async ({ port }) => {
      const [a, b] = [PrivateKey.generate(), PrivateKey.generate()].map(
        (key) => new RelayClient(key, `http://127.0.0.1:${port}/derp`),
      ) as [RelayClient, RelayClient];
      await Promise.all([a.connect(), b.connect()]);
      await a.send(b.publicKey, Buffer.from('embedded'));
      expect(await nextPacket(b)).toBe('embedded');
      expect(await (await fetch(`http://127.0.0.1:${port}/hello`)).text()).toBe('page /hello');
      await Promise.all([a.close(), b.close()]);
    }));

  it.each([false, true])('takes over a socket with bytes already pipelined (fast start: %s)', (fastStart) =>
    withAttached({ shards }, createServer(page), async ({ port, server }) => {
      const peer = await (await RawClient.dial(port)).open();
      for (let round = 0; round < 20; round++) {
        const client = await RawClient.dial(port);
        const info = frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey: server.publicKey.bytes }));
        const packets = Array.from({ length: 20 }, (_, n) => sendPacketFrame(peer.publicKey, Buffer.of(round, n)));
        await client.write(Buffer.concat([upgradeHead({ fastStart }), info, ...packets]));
        if (!fastStart) await client.readHead();
        await client.readServerKey();
        await client.readServerInfo();
        for (let n = 0; n < packets.length; n++)
          expect((await peer.expectPacket()).packet).toEqual(Buffer.of(round, n));
        await client.settle();
        client.destroy();
        await peer.expectPeerGone();
      }
      peer.destroy();
    }),
  );

  it.each([
    ['a second Host', 'HTTP/1.1', ['Host: relay.test', 'Host: other.test'], 'HTTP/1.1 400 Bad Request'],
    ['a malformed Host', 'HTTP/1.1', ['Host: a b'], 'HTTP/1.1 400 Bad Request: malformed Host header'],
    ['an unknown Expect', 'HTTP/1.1', ['Host: relay.test', 'Expect: x'], 'HTTP/1.1 417 Expectation Failed'],
  ])('refuses an upgrade with %s, which its host let pass', (_, version, lines, status) =>
    withAttached({ shards }, createServer(page), async ({ port }) => {
      const client = await RawClient.dial(port);
      const head = [`GET /derp ${version}`, ...lines, 'Upgrade: DERP', 'Connection: Upgrade'];
      await client.write(Buffer.from(`${head.join('\r\n')}\r\n\r\nGET /next HTTP/1.1\r\nHost: relay.test\r\n\r\n`));
      const answers = (await client.readToEnd()).toString();
      expect(answers.startsWith(`${status}\r\n`)).toBe(true);
      expect(answers).not.toContain('page /next');
    }),
  );

  it('takes over a socket that brings 1 MiB along', () =>
    withAttached({ shards }, createServer(page), async ({ port, server }) => {
      const peer = await (await RawClient.dial(port)).open();
      const client = await RawClient.dial(port);
      const info = frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey: server.publicKey.bytes }));
      const packets = Array.from({ length: 16 }, (_, n) => sendPacketFrame(peer.publicKey, patterned(65_536, n)));
      client.push(Buffer.concat([upgradeHead({ fastStart: true }), info, ...packets]));
      for (let n = 0; n < packets.length; n++) {
        expect((await peer.expectPacket()).packet.equals(patterned(65_536, n))).toBe(true);
      }
      peer.destroy();
      client.destroy();
    }));

  it('takes over a socket after other requests on it', () =>
    withAttached({ shards }, createServer(page), async ({ port }) => {
      const client = await RawClient.dial(port);
      await client.write(Buffer.from('HEAD /first HTTP/1.1\r\nHost: relay.test\r\n\r\n'));
      expect(await client.readHead()).toMatch(/^HTTP\/1\.1 200 /);
      await client.open();
      await client.settle();
      client.destroy();
    }));

  it('leaves upgrades of other paths to its host', () =>
    withAttached({ shards }, createServer(page), async ({ port, http }) => {
      http.on('upgrade', (request, socket) => {
        if (request.url === '/chat') socket.end('HTTP/1.1 101 Switching Protocols\r\n\r\nchat');
      });
      const client = await RawClient.dial(port);
      await client.write(upgradeHead({ path: '/chat', lines: ['Upgrade: chat', 'Connection: Upgrade'] }));
      expect(await client.readHead()).toBe('HTTP/1.1 101 Switching Protocols');
      expect((await client.readToEnd()).toString()).toBe('chat');
      await (await (await RawClient.dial(port)).open()).settle();
    }));

  it('works over TLS, where the descriptor cannot be taken over', () =>
    withAttached({ shards }, createTlsServer(tlsOptions, page), async ({ port }) => {
      const [a, b] = [await tlsClient(port), await tlsClient(port)];
      for (const size of [0, 1, 1400, 65_536]) {
        await a.send(b.publicKey, patterned(size));
        expect((await b.expectPacket()).packet.equals(patterned(size))).toBe(true);
      }
      a.destroy();
      expect(await b.expectPeerGone()).toEqual({ key: a.publicKey.hex, reason: 0 });
      b.stream.end();
      await b.expectClose();
    }));

  it('closes its connections with close(), and leaves the http.Server running', async () => {
    const http = createServer(page).listen(0, '127.0.0.1');
    await once(http, 'listening');
    const { port } = http.address() as AddressInfo;
    const server = new Server(PrivateKey.generate(), { shards, handshake: { threads: 1 } });
    server.attach(http);
    const client = await (await RawClient.dial(port)).open();
    await server.close();
    await client.expectClose();
    expect(await (await fetch(`http://127.0.0.1:${port}/after`)).text()).toBe('page /after');
    http.close();
    http.closeAllConnections();
  });
});

interface Attached {
  server: Server;
  http: HttpServer;
  port: number;
}

async function withAttached(
  options: ServerOptions,
  http: HttpServer,
  body: (attached: Attached) => Promise<void>,
): Promise<void> {
  const server = new Server(PrivateKey.generate(), { handshake: { threads: 1 }, ...options });
  try {
    server.attach(http);
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    await body({ server, http, port: (http.address() as AddressInfo).port });
    await server.consistencyCheck();
  } finally {
    http.close();
    http.closeAllConnections();
    await server.close();
  }
}

/** A raw client over TLS, past its handshake. */
async function tlsClient(port: number): Promise<RawClient> {
  const tcp: Socket = connect({ port, host: '127.0.0.1', noDelay: true });
  const socket: TLSSocket = connectTls({
    socket: tcp,
    ciphers: 'PSK',
    maxVersion: 'TLSv1.2',
    pskCallback: () => psk,
    checkServerIdentity: () => undefined,
  });
  await once(socket, 'secureConnect');
  return new RawClient(socket).open();
}

async function nextPacket(client: RelayClient): Promise<string> {
  for (;;) {
    const message = await client.recv();
    if (message.type === 'packet') return Buffer.from(message.data).toString();
  }
}
