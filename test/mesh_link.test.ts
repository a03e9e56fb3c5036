/** One link of a relay to another, which is played by the test. */
import { PrivateKey, type PublicKey, Server, type ServerOptions } from 'derplane';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FrameType, forwardPacketFrame, frameOf, pingFrame, serverKeyFrame } from '../dist/protocol/frame.js';
import { openClientInfo, sealServerInfo } from '../dist/protocol/info.js';
import { type FakeConnection, FakeRelay } from './support/fake_relay.js';
import { LogWatch } from './support/log_watch.js';
import { RawClient } from './support/raw_client.js';
import { SHARD_COUNTS } from './support/relay.js';

const MESH_KEY = '5e'.repeat(32);

describe.each(SHARD_COUNTS)('a mesh link of a relay with %i shard(s)', (shards) => {
  let other: FakeRelay;
  let server: Server;
  let log: LogWatch;
  let port: number;
  const clients: RawClient[] = [];

  async function start(options: ServerOptions = {}): Promise<void> {
    log = new LogWatch();
    const mesh = { key: MESH_KEY, retryInterval: 10, ...options.mesh };
    server = new Server(PrivateKey.generate(), { shards, handshake: { threads: 1 }, logger: log, ...options, mesh });
    ({ port } = await server.listen({ host: '127.0.0.1', port: 0 }));
  }

  beforeEach(async () => {
    other = await FakeRelay.start();
    await start();
  });

  afterEach(async () => {
    await server.consistencyCheck();
    for (const client of clients.splice(0)) client.destroy();
    await server.close();
    await other.close();
  });

  async function connect(): Promise<RawClient> {
    const client = await RawClient.dial(port);
    clients.push(client);
    return client.open();
  }

  const host = () => `127.0.0.1:${other.port}`;
  const present = (key: PublicKey) => frameOf(FrameType.PEER_PRESENT, key.bytes, Buffer.alloc(18), Buffer.from([1]));
  const gone = (key: PublicKey, reason = 0) => frameOf(FrameType.PEER_GONE, key.bytes, Buffer.from([reason]));
  const newKey = () => PrivateKey.generate().publicKey;

  /** The link, past its handshake, its WatchConns read. */
  async function linked(): Promise<FakeConnection> {
    const link = await other.client();
    expect(await link.nextFrame()).toMatchObject({ type: FrameType.WATCH_CONNS, body: Buffer.alloc(0) });
    return link;
  }

  /** Bodies of ForwardPacket frames that may come: those of packets that were sent, some of them more than once. */
  const sent = new Set<string>();

  /** Sends until a packet has crossed: presence of the key was then read. */
  async function untilForwarded(from: RawClient, to: PublicKey, link: FakeConnection, packet: Buffer): Promise<void> {
    const wanted = forwardPacketFrame(from.publicKey, to, packet).subarray(5).toString('latin1');
    sent.add(wanted);
    let crossed = false;
    const crossing = (async () => {
      for (;;) {
        const { type, body } = await link.nextFrame();
        if (type !== FrameType.FORWARD_PACKET || !sent.has(body.toString('latin1'))) {
          throw new Error(`frame ${type} of ${body.length} bytes that nobody sent`);
        }
        if (body.toString('latin1') === wanted) return;
      }
    })().finally(() => {
      crossed = true;
    });
    while (!crossed) {
      await from.send(to, packet);
      await from.settle();
    }
    await crossing;
  }

  it('begins as a client with the mesh key and a watch', async () => {
    server.addMeshPeer(`http://${host()}`);
    const link = await other.connection();
    const head = await link.readHead();
    expect(head).toMatch(/^GET \/derp HTTP\/1\.1\r\n/);
    expect(head).toMatch(new RegExp(`^host: ${host().replaceAll('.', '\\.')}\r$`, 'im'));
    expect(head).toMatch(/^upgrade: DERP\r$/im);
    expect(head).not.toMatch(/ideal-node|fast-start/i);
    link.switchProtocols();
    const { key, info } = await link.letIn();
    expect(key.equals(server.publicKey)).toBe(true);
    expect(info).toMatchObject({ meshKey: MESH_KEY, version: 2, isProber: false });
    expect(await link.nextFrame()).toMatchObject({ type: FrameType.WATCH_CONNS });
  });

  it('dials the host behind the slash under the name and port in front of it', async () => {
    server.addMeshPeer(`http://derp.invalid:${other.port}/127.0.0.1`);
    const link = await other.connection();
    expect(await link.readHead()).toMatch(new RegExp(`^host: derp\\.invalid:${other.port}\r$`, 'im'));
    link.switchProtocols();
    await link.letIn();
    await log.line(new RegExp(`^INFO mesh\\("derp\\.invalid:${other.port}"\\): connected; 0 peers$`));
  });

  it('loses no byte that comes with ServerInfo, wherever the network cut it', async () => {
    const keys = Array.from({ length: 20 }, newKey);
    for (const cut of [0, 1, 5, 6, 40, 57, 200, 600]) {
      server.addMeshPeer(`http://${host()}`);
      const link = await other.connection();
      await link.readHead();
      link.switchProtocols();
      link.write(serverKeyFrame(other.privateKey.publicKey));
      const { key, box } = openClientInfo((await link.nextFrame()).body, other.privateKey);
      const rest = Buffer.concat(keys.map(present));
      link.write(sealServerInfo(key, other.privateKey, box), rest.subarray(0, cut));
      expect(await link.nextFrame()).toMatchObject({ type: FrameType.WATCH_CONNS });
      link.write(rest.subarray(cut));
    }
    await log.line(/connected; 20 peers$/, 8);
  });

  it('carries packets to keys that are present there, and no longer once they are gone', async () => {
    server.addMeshPeer(`http://${host()}`);
    const link = await linked();
    const from = await connect();
    const [here, there] = [newKey(), newKey()];
    link.write(present(there), present(here), present(there));
    await untilForwarded(from, there, link, Buffer.from('first'));
    await untilForwarded(from, here, link, Buffer.alloc(65_536, 7));
    link.write(gone(there, 1), pingFrame(Buffer.from('12345678')));
    // Presence is handled in order, so the pong means that the key is gone on the link's shard; its own shard follows.
    let frame = await link.nextFrame();
    while (frame.type !== FrameType.PONG) frame = await link.nextFrame();
    expect(frame.body).toEqual(Buffer.from('12345678'));
    await expect
      .poll(async () => {
        await from.send(there, Buffer.from('lost'));
        await from.settle();
        return server.expVar().packets_dropped['unknown_dest']?.other;
      })
      .toBeGreaterThan(0);
  });

  it('delivers what the other relay sends: nothing, for packets to us come by their own link', async () => {
    server.addMeshPeer(`http://${host()}`);
    const link = await linked();
    const to = await connect();
    const source = newKey();
    link.write(
      frameOf(FrameType.RECV_PACKET, source.bytes, Buffer.from('forged')),
      forwardPacketFrame(source, to.publicKey, Buffer.from('wrong direction')),
      frameOf(0x7f, Buffer.alloc(1000)),
      frameOf(FrameType.KEEP_ALIVE),
      pingFrame(Buffer.alloc(8, 1)),
    );
    expect(await link.nextFrame()).toMatchObject({ type: FrameType.PONG });
    await to.settle();
  });

  it('that ends is made again, its keys forgotten meanwhile', async () => {
    server.addMeshPeer(`http://${host()}`);
    const first = await linked();
    const from = await connect();
    const [before, after] = [newKey(), newKey()];
    first.write(present(before));
    await untilForwarded(from, before, first, Buffer.from('before'));
    first.socket.destroy();
    const second = await linked();
    await log.line(/^INFO mesh\(".*"\): reconnected; clearing 1 forwarding mappings$/);
    await log.line(/^WARN mesh\(".*"\): Recv: /);
    second.write(present(after));
    await untilForwarded(from, after, second, Buffer.from('after'));
    await expect.poll(() => Number(server.expVar().gauge_clients_remote)).toBe(1);
  });

  it('that cannot be had is tried for again', async () => {
    server.addMeshPeer(`http://${host()}`);
    (await other.connection()).socket.destroy();
    await log.line(/^WARN mesh\(".*"\): mesh connect: cannot connect to http:\/\/127\.0\.0\.1:\d+\/derp: /);
    const second = await other.connection();
    await second.readHead();
    second.write(Buffer.from('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'));
    await log.line(/mesh connect: .* answered 404 Not Found to the DERP upgrade$/);
    const third = await other.connection();
    await third.readHead();
    third.switchProtocols();
    third.write(frameOf(FrameType.HEALTH, Buffer.from('x')));
    await log.line(/mesh connect: http:.*\/derp: the first frame has type 20, needs ServerKey/);
    await linked();
  });

  it('without ServerInfo is none', async () => {
    server.addMeshPeer(`http://${host()}`);
    const link = await other.connection();
    await link.readHead();
    link.switchProtocols();
    link.write(serverKeyFrame(other.privateKey.publicKey));
    await link.nextFrame();
    link.write(frameOf(FrameType.SERVER_INFO, Buffer.alloc(60)));
    await log.line(/mesh connect: .*box/i);
    await link.ended();
    await linked();
  });

  it('to the relay itself ends for good, before anything was said', async () => {
    server.addMeshPeer(`http://127.0.0.1:${port}`);
    await log.line(new RegExp(`^INFO mesh\\("127\\.0\\.0\\.1:${port}"\\): detected self-connect; ignoring host$`));
    server.addMeshPeer(`http://${host()}`);
    await linked();
    await log.line(/connected; 0 peers/);
    expect(log.lines.filter((line) => line.includes('self-connect'))).toHaveLength(1);
    expect(log.lines.filter((line) => line.includes('WARN'))).toEqual([]);
  });

  it('ends with the relay, in whatever state it is', async () => {
    server.addMeshPeer(`http://${host()}`);
    server.addMeshPeer(`http://${host()}`);
    server.addMeshPeer('http://127.0.0.1:1');
    const [up, dialling] = [await linked(), await other.connection()];
    await log.line(/mesh\("127\.0\.0\.1:1"\): mesh connect: /);
    const { lines } = log;
    await server.close();
    await Promise.all([up.ended(), dialling.ended()]);
    expect(lines.filter((line) => line.includes('Recv'))).toEqual([]);
    await start();
  });

  it('that was listed before the relay closed needs a mesh key and a host', async () => {
    expect(() => server.addMeshPeer('a/b/c')).toThrow(expect.objectContaining({ code: 'ERR_DERP_BAD_OPTION' }));
    const key = PrivateKey.generate();
    expect(() => new Server(key, { mesh: { with: [`http://${host()}`] } })).toThrow(
      expect.objectContaining({ code: 'ERR_DERP_NO_MESH_KEY' }),
    );
    expect(() => new Server(key, { mesh: { key: MESH_KEY, with: ['http://192.0.2.1'] } })).toThrow(
      '-mesh-insecure-http',
    );
    await server.close();
    expect(() => server.addMeshPeer(`http://${host()}`)).toThrow(expect.objectContaining({ code: 'ERR_DERP_CLOSED' }));
    await start({ mesh: { with: [`http://${host()}`] } });
    await linked();
  });
});
