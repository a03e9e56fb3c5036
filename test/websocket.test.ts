/** DERP over WebSocket: the same relay, the same rules. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { createPageServer, PrivateKey, type PublicKey, Server } from 'derplane';
import { describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import {
  clientInfoBody,
  discoPacket,
  Frame,
  frame,
  RawClient,
  sendPacketFrame,
  upgradeHead,
} from './support/raw_client.js';
import { patterned, type TestRelay, withRelay } from './support/relay.js';
import {
  closeOf,
  dialWebSocket,
  nextWireFrame,
  openWebSocket,
  WEBSOCKET_LINES,
  webSocketUrl,
  wireFrame,
} from './support/web_socket.js';

const MESH_KEY = 'a5'.repeat(32);

/** 98 MB. */
const FLOOD = 1_500;
const FLOOD_PACKET = 65_536;
/** Bytes that may wait on their way: 10 MB in the kernel's buffers of TCP, a queue of 2 MB, under 1 MB elsewhere. */
const MAX_WAITING = 24 << 20;

/** Fewer packets than a queue holds; none is dropped unless the receiver takes none. Returns how many. */
async function burst(sender: RawClient, receiver: PublicKey): Promise<number> {
  for (let n = 0; n < 16; n++) await sender.send(receiver, patterned(FLOOD_PACKET));
  await sender.settleCounting(Frame.peerGone);
  return 16;
}

/** Whether the queues become empty soon. */
async function isTaken(relay: TestRelay): Promise<boolean> {
  return relay
    .untilCounter(['gauge_queue_bytes'], (value) => value === 0, 1_000)
    .then(
      () => true,
      () => false,
    );
}

/** Tries again until it succeeds; what it is last refused with is the error. */
async function untilServed<T>(attempt: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

describe.each([
  ['plain', false],
  ['TLS', true],
])('a WebSocket over %s', (_, tls) => {
  it('relays packets of every size to and from clients over TCP, on one shard and across shards', () =>
    withRelay({ shards: 2, tls }, async (relay) => {
      const { client } = await openWebSocket(relay, relay.keyOn(0));
      for (const other of await relay.onePerShard()) {
        for (const size of [0, 1, 1_280, 65_536]) {
          await client.send(other.publicKey, patterned(size));
          expect(await other.expectPacket()).toEqual({ source: client.publicKey.hex, packet: patterned(size) });
          await other.send(client.publicKey, patterned(size, 1));
          expect(await client.expectPacket()).toEqual({ source: other.publicKey.hex, packet: patterned(size, 1) });
        }
      }
      expect(relay.counter('websocket_accepts')).toBe(1);
      expect(relay.counter('accepts')).toBe(3);
      expect(relay.counter('gauge_current_connections')).toBe(3);
      await relay.untilCounter(['counter_tcp_rtt', 'non-tcp'], (value) => value === 1);
    }));

  it('takes frames split over and packed into messages and fragments at will', () =>
    withRelay({ shards: 1, tls }, async (relay) => {
      const other = await relay.connect();
      const { client, webSocket } = await openWebSocket(relay);
      const packets = [patterned(300), discoPacket('x'), patterned(65_536), patterned(0)];
      const bytes = Buffer.concat(packets.map((packet) => sendPacketFrame(other.publicKey, packet)));
      for (const step of [1, 7, 4_096, bytes.length]) {
        const part = step === 1 ? bytes.subarray(0, sendPacketFrame(other.publicKey, packets[0]!).length) : bytes;
        for (let at = 0; at < part.length; at += step) {
          webSocket.send(part.subarray(at, at + step), { binary: true, fin: step !== 4_096 });
        }
        if (step === 4_096) webSocket.send(Buffer.alloc(0), { binary: true, fin: true });
        for (const packet of step === 1 ? packets.slice(0, 1) : packets) {
          expect((await other.expectPacket()).packet).toEqual(packet);
        }
      }
      await client.settle();
    }));

  it('ends with 1000 when the relay closes the connection, whatever for', () =>
    withRelay({ shards: 1, tls, handshake: { clientInfoTimeout: 300 } }, async (relay) => {
      const [silent, lying] = [await dialWebSocket(relay), await dialWebSocket(relay)];
      lying.client.push(frame(Frame.ping, Buffer.alloc(8)));
      expect(await closeOf(lying.webSocket)).toMatchObject({ code: 1000 });
      expect(await closeOf(silent.webSocket)).toMatchObject({ code: 1000 });
      expect(relay.counter('handshakes_failed', 'bad_first_frame')).toBe(1);
      expect(relay.counter('handshakes_failed', 'timeout')).toBe(1);
      const forbidden = await openWebSocket(relay);
      forbidden.client.push(frame(Frame.watchConns));
      expect(await closeOf(forbidden.webSocket)).toMatchObject({ code: 1000 });
    }));

  it.each([1000, 1001])('that the client closes with %i is gone at once, what it sent before is delivered', (code) =>
    withRelay({ shards: 1, tls }, async (relay) => {
      const other = await relay.connect();
      const { client, webSocket } = await openWebSocket(relay);
      await other.send(client.publicKey, patterned(10));
      await client.expectPacket();
      for (let n = 0; n < 20; n++) webSocket.send(sendPacketFrame(other.publicKey, patterned(65_536, n)));
      webSocket.close(code);
      // PeerGone may overtake packets.
      const types: number[] = [];
      while (types.length < 21) types.push((await other.nextFrame()).type);
      expect(types.filter((type) => type === Frame.recvPacket).length).toBe(20);
      expect(types).toContain(Frame.peerGone);
      await relay.untilCounter(['gauge_current_connections'], (value) => value === 1);
    }),
  );

  it('answers the pings of WebSocket', () =>
    withRelay({ shards: 1, tls }, async (relay) => {
      const { webSocket } = await openWebSocket(relay);
      webSocket.ping('hello');
      const [data] = await once(webSocket, 'pong');
      expect(String(data)).toBe('hello');
    }));

  it('never gets an extension, and the subprotocol as offered', () =>
    withRelay({ shards: 1, tls }, async (relay) => {
      const client = await relay.dial();
      const lines = WEBSOCKET_LINES.map((line) => line.replace(': derp', ': chat, derp'));
      await client.write(upgradeHead({ lines: [...lines, 'Sec-WebSocket-Extensions: permessage-deflate'] }));
      const head = await client.readHead();
      expect(head).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/);
      expect(head).toContain('\r\nSec-WebSocket-Protocol: derp');
      expect(head).not.toContain('Extensions');
      expect((await nextWireFrame(client)).opcode).toBe(2);
    }));

  it('may send its first messages together with the request', () =>
    withRelay({ shards: 1, tls }, async (relay) => {
      const client = await relay.dial();
      const info = clientInfoBody(client.key, { serverKey: relay.server.publicKey.bytes });
      const message = wireFrame({ opcode: 2, body: frame(Frame.clientInfo, info) });
      await client.write(Buffer.concat([upgradeHead({ lines: WEBSOCKET_LINES }), message]));
      await client.readHead();
      await nextWireFrame(client);
      await relay.untilCounter(['gauge_current_connections'], (value) => value === 1);
    }));
});

describe('a WebSocket', () => {
  it('has the address of its client in presence, and may be a mesh peer', () =>
    withRelay({ shards: 1, mesh: { key: MESH_KEY } }, async (relay) => {
      const watcher = await dialWebSocket(relay);
      await watcher.client.handshake({ meshKey: MESH_KEY });
      await watcher.client.write(frame(Frame.watchConns));
      await watcher.client.expectFrame(Frame.peerPresent);
      const { webSocket, client } = await openWebSocket(relay);
      const socket = (webSocket as unknown as { _socket: { localPort: number } })._socket;
      const present = await watcher.client.expectFrame(Frame.peerPresent);
      expect(present.subarray(0, 32).toString('hex')).toBe(client.publicKey.hex);
      expect(present.subarray(44, 48)).toEqual(Buffer.of(127, 0, 0, 1));
      expect(present.readUInt16BE(48)).toBe(socket.localPort);
    }));

  it('keeps to the receive limit', () =>
    withRelay({ shards: 1 }, async (relay) => {
      const { client } = await openWebSocket(relay);
      const other = await relay.connect();
      relay.server.setRateLimit(1_000_000);
      for (let n = 0; n < 8; n++) client.push(sendPacketFrame(other.publicKey, patterned(65_000, n)));
      for (let n = 0; n < 8; n++) expect((await other.expectPacket()).packet[0]).toBe(n);
      expect(relay.counter('rate_limit_per_client_waited')).toBeGreaterThan(0);
    }));

  it('counts among the handshakes while it is silent, and is ended for a newcomer', () =>
    withRelay({ shards: 1, handshake: { maxPending: 4 } }, async (relay) => {
      const silent = [];
      for (let n = 0; n < 4; n++) silent.push(await dialWebSocket(relay));
      for (const { client } of silent) await client.readServerKey();
      // Nobody is ended before they have had the time to go on.
      const newcomer = await untilServed(() => openWebSocket(relay));
      await newcomer.client.settle();
      expect(relay.counter('evicted_connections', 'handshakes')).toBeGreaterThan(0);
      await silent[0]!.client.expectClose();
    }));

  it('hears that the relay drains, and is closed with 1000', () =>
    withRelay({ shards: 1 }, async (relay) => {
      const { client, webSocket } = await openWebSocket(relay);
      const closed = closeOf(webSocket);
      await relay.server.consistencyCheck();
      const draining = relay.server.close({ drainTime: 200 });
      expect((await client.nextFrame()).type).toBe(0x15);
      expect(await closed).toMatchObject({ code: 1000 });
      await draining;
    }).catch((error) => {
      // The relay is closed, so its tables cannot be checked any more.
      if (error.code !== 'ERR_DERP_CLOSED') throw error;
    }));

  it('is closed with 1000 when the relay closes', () =>
    withRelay({ shards: 1 }, async (relay) => {
      const { webSocket } = await openWebSocket(relay);
      const closed = closeOf(webSocket);
      await relay.server.close();
      expect(await closed).toMatchObject({ code: 1000 });
    }).catch((error) => {
      if (error.code !== 'ERR_DERP_CLOSED') throw error;
    }));

  it('that does not read is closed by the write timeout', () =>
    withRelay({ shards: 1, timeouts: { write: 500 } }, async (relay) => {
      const client = await relay.dial();
      const info = clientInfoBody(client.key, { serverKey: relay.server.publicKey.bytes });
      const message = wireFrame({ opcode: 2, body: frame(Frame.clientInfo, info) });
      await client.write(Buffer.concat([upgradeHead({ lines: WEBSOCKET_LINES }), message]));
      await relay.untilCounter(['gauge_current_connections'], (value) => value === 1);
      const sender = await relay.connect();
      client.freeze();
      while (relay.counter('sclient_write_timeouts') === 0 && !client.closed) await burst(sender, client.publicKey);
      await relay.untilCounter(['sclient_write_timeouts'], (value) => value === 1);
      await relay.untilCounter(['gauge_current_connections'], (value) => value === 1);
    }));

  it('that does not read costs a bounded memory: what is beyond is dropped from its queue, as over TCP', () =>
    withRelay({ shards: 1, timeouts: { write: 0 } }, async (relay) => {
      const { client } = await openWebSocket(relay);
      const sender = await relay.connect();
      client.freeze();
      let sent = 0;
      do sent += await burst(sender, client.publicKey);
      while (sent < FLOOD && (await isTaken(relay)));
      // All of it waits: in the kernel, the queue, the socketpair, and JavaScript.
      expect(sent * FLOOD_PACKET).toBeLessThan(MAX_WAITING);
      client.thaw();
      for (let n = 0; n < sent - relay.dropped('queue_head', 'other'); n++) await client.expectPacket();
      await client.settle();
    }));

  it('that sends faster than it may is not read on', () =>
    withRelay({ shards: 1 }, async (relay) => {
      const { client, webSocket } = await openWebSocket(relay);
      const other = await relay.connect();
      // A millionth of what is sent: its bucket is empty for hours.
      relay.server.setRateLimit(1);
      for (let n = 0; n < FLOOD; n++) webSocket.send(sendPacketFrame(other.publicKey, patterned(FLOOD_PACKET)));
      await relay.untilCounter(['rate_limit_per_client_waited'], (value) => value > 0);
      let [left, looks] = [webSocket.bufferedAmount, 0];
      while (looks < 20) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        looks = webSocket.bufferedAmount === left ? looks + 1 : 0;
        left = webSocket.bufferedAmount;
      }
      expect(left).toBeGreaterThan(FLOOD * FLOOD_PACKET - MAX_WAITING);
      relay.server.setRateLimit(0);
      for (let n = 0; n < FLOOD; n++) await other.expectPacket();
      // It hears that it was slowed down.
      await client.settleCounting(Frame.health);
    }));

  it('is served by a listener without pages too', () =>
    withRelay({ shards: 1 }, async (relay) => {
      const listener = await relay.listen();
      const webSocket = new WebSocket(webSocketUrl(relay).replace(String(relay.port), String(listener.port)), 'derp', {
        rejectUnauthorized: false,
      });
      const [data] = await once(webSocket, 'message');
      expect((data as Buffer)[0]).toBe(Frame.serverKey);
      webSocket.terminate();
    }));

  it('gets 404 from a relay without DERP', async () => {
    const server = new Server(PrivateKey.generate(), { derp: false, shards: 1, handshake: { threads: 1 } });
    try {
      const httpServer = createPageServer({ derpEnabled: false });
      const { port } = await server.listen({ host: '127.0.0.1', port: 0, httpServer });
      const client = new RawClient(connect(port, '127.0.0.1'));
      await client.write(upgradeHead({ lines: WEBSOCKET_LINES }));
      expect(await client.readHead()).toMatch(/^HTTP\/1\.1 404 /);
      client.destroy();
    } finally {
      await server.close();
    }
  });
});

describe("at an embedder's server", () => {
  it("stands beside the embedder's own WebSockets", () =>
    withRelay({ shards: 1 }, async ({ server }) => {
      const httpServer = createServer().listen(0, '127.0.0.1');
      await once(httpServer, 'listening');
      const chat = new WebSocketServer({ noServer: true });
      httpServer.on('upgrade', (request, socket, head) => {
        if (request.url === '/chat') chat.handleUpgrade(request, socket, head, (webSocket) => webSocket.send('hello'));
      });
      server.attach(httpServer);
      const base = `ws://127.0.0.1:${(httpServer.address() as AddressInfo).port}`;
      const [own, derp] = [new WebSocket(`${base}/chat`), new WebSocket(`${base}/derp`, 'derp')];
      const [[hello], [key]] = await Promise.all([once(own, 'message'), once(derp, 'message')]);
      expect(String(hello)).toBe('hello');
      expect((key as Buffer)[0]).toBe(Frame.serverKey);
      for (const webSocket of [own, derp]) webSocket.terminate();
      httpServer.close();
    }));
});
