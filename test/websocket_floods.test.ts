/** WebSockets that send for ever what would cost the relay memory without a bound. */
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { WebSocketBridge } from '../dist/websocket/bridge.js';
import { type RawClient, sendPacketFrame, upgradeHead } from './support/raw_client.js';
import { patterned, type TestRelay, withRelay } from './support/relay.js';
import { nextWireFrame, openWebSocket, WEBSOCKET_LINES, wireFrame } from './support/web_socket.js';

const BINARY = 2;
const PING = 9;

/** Bytes that a flood may cost. */
const MEMORY = 48 << 20;

async function expectUndisturbed(relay: TestRelay): Promise<void> {
  const [a, { client: b }] = [await relay.connect(), await openWebSocket(relay)];
  await a.send(b.publicKey, patterned(1_000));
  expect((await b.expectPacket()).packet).toEqual(patterned(1_000));
}

/** A WebSocket whose relay reads nothing, and what was queued for it. */
async function stalledBridge(): Promise<{ client: WebSocket; queued: Buffer[]; close(): Promise<void> }> {
  const queued: Buffer[] = [];
  const pair = new Duplex({ read: () => undefined, write: () => undefined });
  const write = pair.write.bind(pair) as (chunk: Buffer) => boolean;
  pair.write = (chunk: Buffer) => {
    queued.push(chunk);
    return write(chunk);
  };
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const [webSocket] = (await once(server, 'connection')) as [WebSocket];
  const bridge = new WebSocketBridge({
    webSocket,
    pair: Object.assign(pair, { destroySoon: () => pair.destroy() }) as unknown as Socket,
    ended: new Promise(() => undefined),
    onFault: () => undefined,
    onClosing: () => undefined,
  });
  await once(client, 'open');
  const close = async () => {
    bridge.terminate();
    await new Promise((resolve) => server.close(resolve));
  };
  return { client, queued, close };
}

/** Whether bytes are written soon. */
function isWritten(client: RawClient, bytes: Uint8Array): Promise<boolean> {
  const late = new Promise<false>((resolve) => setTimeout(() => resolve(false), 1_000));
  return Promise.race([client.write(bytes).then(() => true), late]);
}

it('empty messages are not queued for a relay that reads nothing, whose stream would never be full of them', async () => {
  const { client, queued, close } = await stalledBridge();
  client.send(Buffer.from('first'));
  for (let n = 0; n < 10_000; n++) client.send(Buffer.alloc(0));
  client.send(Buffer.from('last'));
  await expect.poll(() => queued.at(-1)?.toString(), { timeout: 10_000 }).toBe('last');
  expect(queued.map(String)).toEqual(['first', 'last']);
  await close();
});

it.each([false, true])('pings of a client that reads no answers end its connection; TLS: %s', (tls) =>
  withRelay({ shards: 1, tls }, async (relay) => {
    const client = await relay.dial();
    await client.write(upgradeHead({ lines: WEBSOCKET_LINES }));
    await client.readHead();
    expect((await nextWireFrame(client)).opcode).toBe(BINARY);
    client.freeze();
    const pings = Buffer.concat(Array.from({ length: 1_000 }, () => wireFrame({ opcode: PING, body: patterned(125) })));
    const before = process.memoryUsage.rss();
    const closed = relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
    let isClosed = false;
    void closed.then(() => {
      isClosed = true;
    });
    while (!isClosed && !client.closed) await Promise.race([client.write(pings).catch(() => undefined), closed]);
    expect(process.memoryUsage.rss() - before).toBeLessThan(MEMORY);
    await closed;
    await expectUndisturbed(relay);
  }),
);

it('a client that leaves while it is not read on is let go', () =>
  withRelay({ shards: 1, timeouts: { keepAliveInterval: 200 } }, async (relay) => {
    const other = await relay.connect();
    const { client, webSocket } = await openWebSocket(relay);
    // Its bucket is empty for hours.
    relay.server.setRateLimit(1);
    const packet = sendPacketFrame(other.publicKey, patterned(60_000));
    while (await isWritten(client, packet));
    webSocket.terminate();
    await relay.untilCounter(['gauge_current_connections'], (value) => value === 1, 30_000);
  }));
