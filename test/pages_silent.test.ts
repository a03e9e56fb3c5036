/** Connections that keep a page server's places without asking for anything: they end for newcomers. */
import { once } from 'node:events';
import type { Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { placeFigures, sourceOf } from '../dist/http/connection_places.js';
import { boundedServer } from '../dist/http/page_server.js';
import { end, listen } from './support/debug_server.js';
import { withRelay } from './support/relay.js';

const REQUEST = 'GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n';

let server: Server;
afterEach(() => (server.listening ? end(server) : undefined));

/** Without the time that connections are left alone for, unless `bounds` say otherwise. */
function serve(bounds: { max?: number; maxPerSource?: number; grace?: number } = {}): Promise<number> {
  server = boundedServer((_, response) => void response.end('page'), { grace: 0, ...bounds });
  return listen(server);
}

async function dial(port: number, localAddress = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', localAddress });
  socket.on('error', () => undefined);
  onTestFinished(() => void socket.destroy());
  await once(socket, 'connect');
  return socket;
}

async function answer(socket: Socket, request = REQUEST): Promise<string> {
  socket.write(request);
  return String((await once(socket, 'data'))[0]);
}

describe('a page server without a free place', () => {
  test.each([
    ['sent nothing', ''],
    ['sent half a request', REQUEST.slice(0, 20)],
    ['had an answer and stays', REQUEST],
  ])('ends the longest idle connection, which %s', async (_, first) => {
    const port = await serve({ max: 3, maxPerSource: 9 });
    const idle: Socket[] = [];
    for (let n = 0; n < 3; n++) {
      const socket = await dial(port);
      if (first === REQUEST) await answer(socket);
      else socket.write(first);
      idle.push(socket);
    }
    const before = placeFigures.evicted;
    const closed = once(idle[0]!.resume(), 'close');
    expect(await answer(await dial(port))).toContain('page');
    await closed;
    expect(placeFigures.evicted).toBe(before + 1);
    expect(idle.slice(1).every((socket) => !socket.closed)).toBe(true);
  });

  test('never ends a request that is being answered: the newcomer is refused', async () => {
    server = boundedServer(() => undefined, { max: 1, maxPerSource: 9, grace: 0 });
    const next = await listen(server);
    const waiting = await dial(next);
    const received = once(server, 'request');
    waiting.write(REQUEST);
    await received;
    const before = placeFigures.refused;
    await once((await dial(next)).resume(), 'close');
    expect(placeFigures.refused).toBe(before + 1);
    expect(waiting.closed).toBe(false);
  });

  test('refuses while all have only just come', async () => {
    const port = await serve({ max: 1, grace: 3_600_000 });
    const first = await dial(port);
    await once((await dial(port)).resume(), 'close');
    expect(await answer(first)).toContain('page');
  });
});

test('a source with more than its share loses its own idle connection', async () => {
  const port = await serve({ max: 9, maxPerSource: 2 });
  const other = await dial(port, '127.0.0.3');
  const own = [await dial(port, '127.0.0.2'), await dial(port, '127.0.0.2')];
  const closed = once(own[0]!.resume(), 'close');
  expect(await answer(await dial(port, '127.0.0.2'))).toContain('page');
  await closed;
  expect(await answer(other)).toContain('page');
  expect(await answer(own[1]!)).toContain('page');
});

test('connections that a relay gave away after a request make room, too', async () => {
  server = boundedServer((_, response) => void response.end('page'), { max: 2, maxPerSource: 9, grace: 0 });
  await withRelay({ shards: 1, tls: false }, async (relay) => {
    const { port } = await relay.listen({ httpServer: server });
    const idle: Socket[] = [];
    for (let n = 0; n < 10; n++) {
      const socket = await dial(port);
      expect(await answer(socket)).toContain('page');
      idle.push(socket.resume());
    }
    await expect.poll(() => idle.map((socket) => socket.closed)).toEqual([...Array(8).fill(true), false, false]);
  });
});

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
  ['2001:db8::1', '2001:db8:0:0'],
  ['2001::1:2:3:4:5:6', '2001:0:1:2'],
  ['::1', '0:0:0:0'],
  [undefined, ''],
])('%s is counted as %s', (address, source) => {
  expect(sourceOf(address)).toBe(source);
});
