import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client } from '../dist/client/client.js';
import type { ReceivedMessage } from '../dist/client/messages.js';
import type { ClientOptions } from '../dist/client/options.js';
import { Box } from '../dist/protocol/box.js';
import { FrameType, frameOf, pingFrame, pongFrame, serverKeyFrame } from '../dist/protocol/frame.js';
import { encodeServerInfo, openClientInfo } from '../dist/protocol/info.js';
import { PrivateKey, PublicKey } from '../dist/protocol/key.js';
import { type FakeConnection, FakeRelay } from './support/fake_relay.js';

const KEY = PublicKey.fromBytes(Buffer.alloc(32, 0xaa));
const MESH_KEY = 'cd'.repeat(32);
const privateKey = PrivateKey.generate();
let relay: FakeRelay;
let opened: Client[];

beforeEach(async () => {
  relay = await FakeRelay.start();
  opened = [];
});

afterEach(async () => {
  for (const client of opened) client.close();
  await relay.close();
});

const withCode = (code: string) => expect.objectContaining({ name: 'DerpError', code });

/** A connection to the relay, not upgraded and not needing it: DERP begins with the first byte. */
async function dialled(): Promise<{ socket: Socket; peer: FakeConnection }> {
  const socket = connect(relay.port, '127.0.0.1');
  const [peer] = await Promise.all([relay.connection(), once(socket, 'connect')]);
  return { socket, peer };
}

/** A client that was let in, its ServerInfo taken from the queue. */
async function connected(
  options: ClientOptions = {},
): Promise<{ client: Client; peer: FakeConnection; socket: Socket }> {
  const { socket, peer } = await dialled();
  const [client] = await Promise.all([Client.connect(privateKey, socket, options), peer.letIn()]);
  opened.push(client);
  expect(await client.recv()).toMatchObject({ type: 'serverInfo', version: 2 });
  return { client, peer, socket };
}

describe('the handshake', () => {
  it('says what the options say', async () => {
    const { socket, peer } = await dialled();
    const options = { meshKey: MESH_KEY.toUpperCase(), isProber: true, appName: 'probe', canAckPings: false };
    const [client, { key, info }] = await Promise.all([Client.connect(privateKey, socket, options), peer.letIn()]);
    opened.push(client);
    expect(key.equals(privateKey.publicKey)).toBe(true);
    expect(info).toEqual({ meshKey: MESH_KEY, version: 2, canAckPings: false, isProber: true, appName: 'probe' });
    expect(client.serverPublicKey.equals(relay.privateKey.publicKey)).toBe(true);
    await client.ready();
  });

  it('does not wait for ServerKey when the key is known, and skips it when it comes', async () => {
    const { socket, peer } = await dialled();
    const client = await Client.connect(privateKey, socket, { serverPublicKey: relay.privateKey.publicKey });
    opened.push(client);
    expect(openClientInfo((await peer.nextFrame()).body, relay.privateKey).info.canAckPings).toBe(true);
    peer.write(serverKeyFrame(relay.privateKey.publicKey), frameOf(FrameType.KEEP_ALIVE));
    expect(await client.recv()).toEqual({ type: 'keepAlive' });
  });

  it('reads what was read from the connection before', async () => {
    const { socket, peer } = await dialled();
    const head = Buffer.concat([
      serverKeyFrame(relay.privateKey.publicKey),
      frameOf(FrameType.HEALTH, Buffer.from('x')),
    ]);
    const [client] = await Promise.all([Client.connect(privateKey, socket, { head }), peer.nextFrame()]);
    opened.push(client);
    expect(await client.recv()).toEqual({ type: 'health', problem: 'x' });
  });

  it.each([
    ['another frame', frameOf(FrameType.KEEP_ALIVE), 'ERR_DERP_BAD_HANDSHAKE'],
    ['HTTP', Buffer.from('HTTP/1.1 200 OK\r\n\r\n'), 'ERR_DERP_BAD_FRAME'],
    ['a ServerKey without the magic', frameOf(FrameType.SERVER_KEY, Buffer.alloc(40)), 'ERR_DERP_BAD_HANDSHAKE'],
    ['a ServerKey over 1,024 bytes', frameOf(FrameType.SERVER_KEY, Buffer.alloc(1025)), 'ERR_DERP_BAD_FRAME'],
    ['a key of low order', frameOf(1, serverKeyFrame(KEY).subarray(5, 13), Buffer.alloc(32)), 'ERR_DERP_BOX'],
  ])('fails on %s, and closes the connection', async (_name, bytes, code) => {
    const { socket, peer } = await dialled();
    peer.write(bytes);
    await expect(Client.connect(privateKey, socket)).rejects.toThrow(withCode(code));
    await peer.ended();
    expect(socket.destroyed).toBe(true);
  });

  it('fails when the relay closes, or says nothing in time', async () => {
    const first = await dialled();
    first.peer.socket.end();
    await expect(Client.connect(privateKey, first.socket)).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
    const second = await dialled();
    await expect(Client.connect(privateKey, second.socket, { handshakeTimeout: 20 })).rejects.toThrow(
      'no DERP handshake within 20 ms',
    );
    expect(second.socket.destroyed).toBe(true);
  });

  it('refuses a mesh key that is none, before anything is sent', async () => {
    const { socket } = await dialled();
    await expect(Client.connect(privateKey, socket, { meshKey: 'cd' })).rejects.toThrow(
      'meshKey: 2 characters, needs 64',
    );
    expect(socket.bytesWritten).toBe(0);
    socket.destroy();
  });

  it('tells ready() that the relay refused the client', async () => {
    const { socket, peer } = await dialled();
    const connecting = Client.connect(privateKey, socket);
    peer.write(serverKeyFrame(relay.privateKey.publicKey));
    const client = await connecting;
    await peer.nextFrame();
    peer.socket.end();
    await expect(client.ready()).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
    await expect(client.recv()).rejects.toThrow('the relay closed the connection');
  });
});

describe('a received frame becomes a message', () => {
  const v6 = Buffer.from('20010db8000000000000000000000001', 'hex');
  const v4 = Buffer.from('00000000000000000000ffffc0000201', 'hex');
  const port = Buffer.from([0x1f, 0x90]);
  const key = KEY.bytes;

  it.each<[string, Buffer, object]>([
    ['RecvPacket', frameOf(5, key, Buffer.from('hi')), { type: 'packet', source: KEY, data: Buffer.from('hi') }],
    ['RecvPacket, empty', frameOf(5, key), { type: 'packet', source: KEY, data: Buffer.alloc(0) }],
    ['KeepAlive', frameOf(6), { type: 'keepAlive' }],
    ['PeerGone', frameOf(8, key, Buffer.from([1])), { type: 'peerGone', peer: KEY, reason: 1 }],
    ['PeerGone without reason', frameOf(8, key), { type: 'peerGone', peer: KEY, reason: 0 }],
    [
      'PeerPresent, IPv4',
      frameOf(9, key, v4, port, Buffer.from([10])),
      { type: 'peerPresent', key: KEY, address: '192.0.2.1', port: 8080, flags: 10 },
    ],
    [
      'PeerPresent, IPv6 and longer',
      frameOf(9, key, v6, port, Buffer.from([1, 99])),
      { type: 'peerPresent', key: KEY, address: '2001:db8::1', port: 8080, flags: 1 },
    ],
    [
      'PeerPresent without flags',
      frameOf(9, key, v4, port),
      { type: 'peerPresent', key: KEY, address: '192.0.2.1', port: 8080, flags: 0 },
    ],
    ['PeerPresent without address', frameOf(9, key), { type: 'peerPresent', key: KEY, flags: 0 }],
    ['Pong that nobody asked for', pongFrame(Buffer.from('12345678')), { type: 'pong', data: Buffer.from('12345678') }],
    ['Health', frameOf(0x14, Buffer.from('früh')), { type: 'health', problem: 'früh' }],
    [
      'Restarting',
      frameOf(0x15, Buffer.from('0000012c00001388', 'hex')),
      { type: 'restarting', reconnectIn: 300, tryFor: 5000 },
    ],
  ])('%s', async (_name, frame, message) => {
    const { client, peer } = await connected();
    peer.write(frame);
    expect(JSON.stringify(await client.recv())).toBe(JSON.stringify(message));
  });

  it('unless it is unknown or shorter than its fixed part: those are skipped', async () => {
    const { client, peer } = await connected();
    const short = [5, 8, 9].map((type) => frameOf(type, Buffer.alloc(31)));
    const shorter = [0x12, 0x13, 0x15].map((type) => frameOf(type, Buffer.alloc(7)));
    peer.write(...short, ...shorter, frameOf(0xee, Buffer.alloc(1 << 20)), frameOf(6));
    expect(await client.recv()).toEqual({ type: 'keepAlive' });
  });
});

describe('pings', () => {
  it('of the relay are answered, with or without a reader', async () => {
    const { client, peer } = await connected();
    peer.write(pingFrame(Buffer.from('abcdefgh')));
    expect(await peer.nextFrame()).toMatchObject({ type: FrameType.PONG, body: Buffer.from('abcdefgh') });
    expect(await client.recv()).toEqual({ type: 'ping', data: Buffer.from('abcdefgh') });
  });

  it('of the relay are the application’s with canAckPings: false', async () => {
    const { client, peer } = await connected({ canAckPings: false });
    peer.write(pingFrame(Buffer.from('abcdefgh')));
    const message = await client.recv();
    if (message.type !== 'ping') throw new Error(message.type);
    await client.sendPong(Buffer.from('87654321'));
    expect(await peer.nextFrame()).toMatchObject({ type: FrameType.PONG, body: Buffer.from('87654321') });
  });

  it('of the client resolve with the time until the same 8 bytes come back', async () => {
    const { client, peer } = await connected();
    const times = Promise.all([client.ping(), client.ping()]);
    const [first, second] = [await peer.nextFrame(), await peer.nextFrame()];
    expect(first.body).toHaveLength(8);
    expect(first.body.equals(second.body)).toBe(false);
    peer.write(pongFrame(Buffer.alloc(8)), pongFrame(second.body), pongFrame(first.body));
    for (const time of await times) expect(time).toBeGreaterThan(0);
    expect(await client.recv()).toEqual({ type: 'pong', data: Buffer.alloc(8) });
  });

  it('of the client fail with the connection', async () => {
    const { client, peer } = await connected();
    const ping = client.ping();
    await peer.nextFrame();
    peer.socket.destroy();
    await expect(ping).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
  });
});

describe('sending', () => {
  it('writes the frames that the methods name', async () => {
    const { client, peer } = await connected({ meshKey: MESH_KEY });
    const other = PublicKey.fromBytes(Buffer.alloc(32, 0xbb));
    await client.send(KEY, Buffer.from('one'));
    await client.notePreferred(true);
    await client.watchConnectionChanges();
    await client.closePeer(KEY);
    await client.forwardPacket(other, KEY, Buffer.from('two'));
    const frames = [];
    for (let count = 0; count < 5; count++) frames.push(await peer.nextFrame());
    expect(frames.map(({ type, body }) => [type, body.length])).toEqual([
      [4, 35],
      [7, 1],
      [0x10, 0],
      [0x11, 32],
      [0x0a, 67],
    ]);
  });

  it('copies the packet: it may be changed at once', async () => {
    const { client, peer } = await connected();
    const packet = Buffer.from('first');
    const sent = client.send(KEY, packet);
    packet.write('other');
    await sent;
    expect((await peer.nextFrame()).body.subarray(32).toString()).toBe('first');
  });

  it('refuses packets over 64 KiB and goes on', async () => {
    const { client, peer } = await connected();
    await expect(client.send(KEY, Buffer.alloc(65_537))).rejects.toThrow(withCode('ERR_DERP_PACKET_TOO_BIG'));
    await client.send(KEY, Buffer.alloc(65_536));
    expect((await peer.nextFrame()).body).toHaveLength(32 + 65_536);
  });

  it('refuses mesh calls without a mesh key, without harm', async () => {
    const { client, peer } = await connected();
    const noKey = withCode('ERR_DERP_NO_MESH_KEY');
    await expect(client.watchConnectionChanges()).rejects.toThrow(noKey);
    await expect(client.closePeer(KEY)).rejects.toThrow(noKey);
    await expect(client.forwardPacket(KEY, KEY, Buffer.alloc(1))).rejects.toThrow(noKey);
    await client.send(KEY, Buffer.alloc(1));
    expect((await peer.nextFrame()).type).toBe(FrameType.SEND_PACKET);
  });

  it('drops, does not delay, and says so, what exceeds the rate of ServerInfo', async () => {
    const { client, peer } = await connected();
    // Room for one packet of 100 bytes (137 on the wire), and next to nothing per second.
    const info = encodeServerInfo({ version: 2, tokenBucketBytesPerSecond: 1, tokenBucketBytesBurst: 200 });
    peer.write(frameOf(FrameType.SERVER_INFO, new Box(privateKey.publicKey, relay.privateKey).seal(info)));
    expect(await client.recv()).toMatchObject({ tokenBucketBytesPerSecond: 1, tokenBucketBytesBurst: 200 });
    for (let count = 0; count < 10; count++) {
      expect(await client.send(KEY, Buffer.alloc(100, count))).toBe(count === 0);
    }
    await client.notePreferred(true);
    expect((await peer.nextFrame()).body[32]).toBe(0);
    expect((await peer.nextFrame()).type).toBe(FrameType.NOTE_PREFERRED);
  });

  it('resolves when the connection took the packet, not before', async () => {
    const taken: (() => void)[] = [];
    const conn = new Duplex({ read() {}, write: (_chunk, _encoding, callback) => void taken.push(callback) });
    const connecting = Client.connect(privateKey, conn, { serverPublicKey: relay.privateKey.publicKey });
    taken.shift()!();
    const client = await connecting;
    opened.push(client);
    const order: string[] = [];
    const first = client.send(KEY, Buffer.from('1')).then(() => order.push('first'));
    const second = client.send(KEY, Buffer.from('2')).then(() => order.push('second'));
    order.push('taken');
    taken.shift()!();
    await first;
    order.push('taken');
    taken.shift()!();
    await second;
    expect(order).toEqual(['taken', 'first', 'taken', 'second']);
  });

  it('keeps one pong at most for a relay that pings and does not read', async () => {
    const taken: (() => void)[] = [];
    const conn = new Duplex({ read() {}, write: (_chunk, _encoding, callback) => void taken.push(callback) });
    const connecting = Client.connect(privateKey, conn, { serverPublicKey: relay.privateKey.publicKey });
    taken.shift()!();
    const client = await connecting;
    opened.push(client);
    for (let count = 0; count < 100; count++) conn.push(pingFrame(Buffer.alloc(8, count)));
    for (let count = 0; count < 100; count++) expect((await client.recv()).type).toBe('ping');
    expect(taken).toHaveLength(1);
    expect(conn.writableLength).toBe(13);
  });
});

describe('receiving', () => {
  it('keeps at most 256 messages and then reads the connection no further', async () => {
    const { client, peer, socket } = await connected();
    const packet = frameOf(5, KEY.bytes, Buffer.alloc(1000));
    const total = 20_000;
    for (let count = 0; count < total; count++) peer.socket.write(packet);
    await expect.poll(() => socket.isPaused()).toBe(true);
    expect(socket.bytesRead).toBeLessThan(2 << 20);
    for (let count = 0; count < total; count++) expect((await client.recv()).type).toBe('packet');
    expect(socket.isPaused()).toBe(false);
  });

  it('returns what arrived before a failure, then the failure for ever', async () => {
    const { client, peer } = await connected();
    const frames = Array.from({ length: 1000 }, (_, i) => frameOf(5, KEY.bytes, Buffer.from([i >> 8, i & 255])));
    peer.socket.end(Buffer.concat(frames));
    for (let i = 0; i < 1000; i++) {
      const message = await client.recv();
      expect(message.type === 'packet' && message.data.readUInt16BE()).toBe(i);
    }
    const failures = [await client.recv().catch((e) => e), await client.recv().catch((e) => e)];
    expect(failures[0]).toEqual(withCode('ERR_DERP_CLOSED'));
    expect(failures[1]).toBe(failures[0]);
    expect(client.failure).toBe(failures[0]);
    await expect(client.send(KEY, Buffer.alloc(1))).rejects.toBe(failures[0]);
  });

  it.each([
    ['a frame over 1 MiB', Buffer.from('0500100001', 'hex'), 'ERR_DERP_BAD_FRAME'],
    ['an unknown frame over 1 MiB', Buffer.from('ee00100001', 'hex'), 'ERR_DERP_BAD_FRAME'],
    ['a ServerInfo that does not open', frameOf(3, Buffer.alloc(60)), 'ERR_DERP_BOX'],
  ])('ends at %s', async (_name, bytes, code) => {
    const { client, peer } = await connected();
    peer.write(bytes, frameOf(6));
    await expect(client.recv()).rejects.toThrow(withCode(code));
    await peer.ended();
  });

  it('is for one party: a second call fails, the first goes on', async () => {
    const { client, peer } = await connected();
    const first = client.recv();
    await expect(client.recv()).rejects.toThrow('recv is already waiting');
    peer.write(frameOf(6));
    expect(await first).toEqual({ type: 'keepAlive' });
  });

  it('can be iterated until close', async () => {
    const { client, peer } = await connected();
    peer.write(frameOf(6), frameOf(6));
    const seen: ReceivedMessage[] = [];
    for await (const message of client) {
      seen.push(message);
      if (seen.length === 2) client.close();
    }
    expect(seen.map(({ type }) => type)).toEqual(['keepAlive', 'keepAlive']);
    await peer.ended();
  });

  it('ends a waiting call when the client is closed', async () => {
    const { client } = await connected();
    const waiting = client.recv();
    client.close();
    client.close();
    await expect(waiting).rejects.toThrow('the client was closed');
  });
});
