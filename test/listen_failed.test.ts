/** What a relay leaves at somebody's HTTP server after a failed listen, and after it was closed: nothing. */
import { createServer, type Server as HttpServer } from 'node:http';
import { PrivateKey, Server, TlsContext } from 'derplane';
import { afterEach, beforeEach, expect, test } from 'vitest';

const HOST = '127.0.0.1';
const handshake = { threads: 1 };
const key = PrivateKey.generate();

let relay: Server;
let pages: HttpServer;

beforeEach(() => {
  relay = new Server(key, { shards: 1, handshake, mesh: { key: 'ab'.repeat(32), with: [`http://${HOST}:1`] } });
  pages = createServer();
});
afterEach(() => relay.close());

/** How many listeners of each event there are. */
const listeners = () => Object.fromEntries(pages.eventNames().map((name) => [name, pages.listenerCount(name)]));

test('a failed listen with TLS leaves no listener at its HTTP server, and no figures of TLS', async () => {
  const other = new Server(key, { shards: 1, handshake });
  try {
    const { port } = await other.listen({ host: HOST, port: 0 });
    const before = listeners();
    const tls = new TlsContext();
    await expect(relay.listen({ host: HOST, port, tls, httpServer: pages })).rejects.toThrow('EADDRINUSE');
    expect(listeners()).toEqual(before);
    expect(relay.expVar()).not.toHaveProperty('tls_listener');

    const next = await relay.listen({ host: HOST, port: 0, tls, httpServer: pages });
    expect(relay.expVar()).toHaveProperty('tls_listener');
    next.close();
  } finally {
    await other.close();
  }
});

test('a relay that waits for an attached server does so once, however often it is attached, and not after close()', async () => {
  const before = listeners();
  for (let n = 0; n < 20; n++) relay.attach(pages);
  expect(pages.listenerCount('listening')).toBe(1 + (before['listening'] ?? 0));
  await relay.close();
  expect(listeners()).toEqual(before);
});

test('a relay that listens itself does not wait for its attached servers any more', async () => {
  const before = pages.listenerCount('listening');
  relay.attach(pages);
  await relay.listen({ host: HOST, port: 0 });
  expect(pages.listenerCount('listening')).toBe(before);
});
