/** derplane's clients against the relay that everybody runs: the Go derper. */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Client } from '../dist/client/client.js';
import type { ReceivedMessage } from '../dist/client/messages.js';
import { RelayClient, type RelayClientOptions } from '../dist/client/relay_client.js';
import { PrivateKey, type PublicKey } from '../dist/protocol/key.js';
import { GO_DERPER_TIMEOUT, type GoDerper, goDerperMissing, startGoDerper } from './support/go_derper.js';

const MESH_KEY = 'cd'.repeat(32);

describe.skipIf(goDerperMissing !== undefined)('against the Go derper', () => {
  let folder: string;
  let keyFile: string;
  let relay: GoDerper;
  const opened: RelayClient[] = [];

  const start = (port?: number) =>
    startGoDerper({
      keyFile,
      args: ['-mesh-psk-file', join(folder, 'mesh.key')],
      ...(port === undefined ? {} : { port }),
    });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-interop-'));
    keyFile = join(folder, 'derper.key');
    await writeFile(join(folder, 'mesh.key'), `${MESH_KEY}\n`, { mode: 0o600 });
    relay = await start();
  }, GO_DERPER_TIMEOUT);

  afterEach(() => {
    for (const client of opened.splice(0)) client.close();
  });

  afterAll(async () => {
    await relay?.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function newClient(options: RelayClientOptions = {}): Promise<RelayClient> {
    const client = new RelayClient(PrivateKey.generate(), relay.url, options);
    opened.push(client);
    await client.connect();
    return client;
  }

  /** The next message of a type; others before it are passed over. */
  async function next<T extends ReceivedMessage['type']>(
    client: { recv(): Promise<ReceivedMessage> },
    type: T,
  ): Promise<Extract<ReceivedMessage, { type: T }>> {
    for (;;) {
      const message = await client.recv();
      if (message.type === type) return message as Extract<ReceivedMessage, { type: T }>;
    }
  }

  const content = (length: number, seed: number) => Buffer.alloc(length, `${seed} of ${length};`);

  it.each([
    ['by 101', {}],
    ['by fast start', { fastStart: true }],
    ['as an ideal node’s client', { idealNode: '1a', appName: 'derplane', isProber: true }],
  ])('packets of 0 to 65,536 bytes cross both ways, connected %s', async (_name, options) => {
    const [a, b] = [await newClient(options), await newClient(options)];
    for (const length of [0, 1, 31, 32, 33, 1280, 4091, 4096, 32_768, 65_535, 65_536]) {
      await a.send(b.publicKey, content(length, 1));
      const there = await next(b, 'packet');
      expect(there.source.equals(a.publicKey)).toBe(true);
      expect(there.data.equals(content(length, 1)), `${length} bytes there`).toBe(true);
      await b.send(a.publicKey, content(length, 2));
      expect((await next(a, 'packet')).data.equals(content(length, 2)), `${length} bytes back`).toBe(true);
    }
  });

  it('10,000 packets arrive in order', async () => {
    const [a, b] = [await newClient(), await newClient()];
    // The relay's queue holds 32 packets: so many may be on their way.
    const window = 30;
    const total = 10_000;
    const numbered = (number: number) => {
      const packet = Buffer.alloc(200);
      packet.writeUInt32BE(number);
      return packet;
    };
    for (let sent = 0; sent < window; sent++) await a.send(b.publicKey, numbered(sent));
    for (let number = 0; number < total; number++) {
      expect((await next(b, 'packet')).data.readUInt32BE()).toBe(number);
      if (number + window < total) await a.send(b.publicKey, numbered(number + window));
    }
  });

  it('a ping comes back', async () => {
    const client = await newClient();
    for (let count = 0; count < 3; count++) expect(await client.ping()).toBeGreaterThan(0);
  });

  it('a peer that leaves after it sent something is reported gone', async () => {
    const [a, b] = [await newClient(), await newClient()];
    await a.send(b.publicKey, Buffer.from('x'));
    await next(b, 'packet');
    a.close();
    const gone = await next(b, 'peerGone');
    expect(gone.peer.equals(a.publicKey)).toBe(true);
    expect(gone.reason).toBe(0);
  });

  it('a disco packet to nobody is answered: not here', async () => {
    const client = await newClient();
    const nobody = PrivateKey.generate().publicKey;
    await client.send(nobody, Buffer.concat([Buffer.from('5453f09f92ac', 'hex'), Buffer.alloc(80)]));
    const gone = await next(client, 'peerGone');
    expect(gone.peer.equals(nobody)).toBe(true);
    expect(gone.reason).toBe(1);
  });

  it('a packet of 65,537 bytes is refused here, and the connection lives', async () => {
    const client = await newClient();
    await expect(client.send(client.publicKey, Buffer.alloc(65_537))).rejects.toThrow('packet of 65537 bytes');
    await client.ping();
  });

  it('a mesh peer watches, forwards and closes', async () => {
    const mesh = await newClient({ meshKey: MESH_KEY.toUpperCase() });
    const peer = await newClient();
    await mesh.watchConnectionChanges();
    const present = await untilPresent(mesh, peer.publicKey);
    expect(present.address).toBe('127.0.0.1');
    expect(present.port).toBeGreaterThan(0);
    expect(present.flags).toBe(1);
    const origin = PrivateKey.generate().publicKey;
    await mesh.forwardPacket(origin, peer.publicKey, Buffer.from('forwarded'));
    const packet = await next(peer, 'packet');
    expect(packet.source.equals(origin)).toBe(true);
    expect(packet.data.toString()).toBe('forwarded');
    await mesh.closePeer(peer.publicKey);
    await expect(next(peer, 'packet')).rejects.toThrow(expect.objectContaining({ code: 'ERR_DERP_CLOSED' }));
    expect((await next(mesh, 'peerGone')).peer.equals(peer.publicKey)).toBe(true);
  });

  async function untilPresent(mesh: RelayClient, key: PublicKey) {
    for (;;) {
      const message = await next(mesh, 'peerPresent');
      if (message.key.equals(key)) return message;
    }
  }

  it('a wrong mesh key ends the connection at the first mesh call', async () => {
    const client = await newClient({ meshKey: 'ee'.repeat(32) });
    await client.watchConnectionChanges();
    await expect(next(client, 'packet')).rejects.toThrow(expect.objectContaining({ code: 'ERR_DERP_CLOSED' }));
  });

  it('a client on a connection of its own dies with the relay, one that dials comes back with it', async () => {
    const dialling = await newClient();
    await dialling.notePreferred(true);
    const socket = connect(relay.port, '127.0.0.1');
    await once(socket, 'connect');
    socket.write('GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Fast-Start: 1\r\n\r\n');
    const single = await Client.connect(PrivateKey.generate(), socket);
    await single.ready();
    const relayKey = single.serverPublicKey;
    await single.send(dialling.publicKey, Buffer.from('before'));
    expect((await next(dialling, 'packet')).data.toString()).toBe('before');

    await relay.close();
    const closed = expect.objectContaining({ code: 'ERR_DERP_CLOSED' });
    await expect(next(single, 'packet')).rejects.toThrow(closed);
    await expect(single.recv()).rejects.toThrow(closed);
    await expect(single.send(dialling.publicKey, Buffer.alloc(1))).rejects.toThrow(closed);
    await expect(next(dialling, 'packet')).rejects.toThrow(closed);
    await expect(dialling.connect()).rejects.toThrow(expect.objectContaining({ code: 'ERR_DERP_CONNECT' }));

    relay = await start(relay.port);
    await dialling.connect();
    expect(dialling.generation).toBe(2);
    expect(dialling.serverPublicKey?.equals(relayKey)).toBe(true);
    const other = await newClient();
    await other.send(dialling.publicKey, Buffer.from('after'));
    expect((await next(dialling, 'packet')).data.toString()).toBe('after');
  });
});
