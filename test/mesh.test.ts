/** Three relays of one region on addresses of their own, all with the same list of hosts. */
import { createServer } from 'node:http';
import { PrivateKey, RelayClient, Server } from 'derplane';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LogWatch } from './support/log_watch.js';
import { nextPacket, stream, untilReached } from './support/packets.js';
import { freePort } from './support/ports.js';
import { discoPacket, RawClient } from './support/raw_client.js';
import { MESH_KEY, RegionRelay } from './support/region_relay.js';
import { SHARD_COUNTS } from './support/relay.js';

const ADDRESSES = ['127.0.0.2', '127.0.0.3', '127.0.0.4'];

class PlainRelay extends RegionRelay {
  get host(): string {
    return `http://${this.address}:${this.port}`;
  }
}

describe.each(SHARD_COUNTS)('a region of three relays with %i shard(s) each', (shards) => {
  let relays: PlainRelay[];
  let clients: RelayClient[];

  beforeEach(async () => {
    clients = [];
    relays = ADDRESSES.map((address) => new PlainRelay(shards, address));
    for (const relay of relays) await relay.start();
    for (const relay of relays) for (const { host } of relays) relay.server.addMeshPeer(host);
    await Promise.all(relays.map(({ log }) => log.line(/self-connect/)));
    // The links of the other two.
    for (const relay of relays) await expect.poll(() => relay.figure('gauge_current_connections')).toBe(2);
  });

  afterEach(async () => {
    for (const client of clients) client.close();
    await Promise.all(relays.map(({ server }) => server.consistencyCheck()));
    await Promise.all(relays.map(({ server }) => server.close()));
  });

  async function connect(relay: PlainRelay, key = PrivateKey.generate()): Promise<RelayClient> {
    const client = new RelayClient(key, `${relay.host}/derp`);
    clients.push(client);
    await client.connect();
    return client;
  }

  /** One client a relay, known to all relays. */
  async function oneEach(): Promise<[RelayClient, RelayClient, RelayClient]> {
    const each = await Promise.all(relays.map((relay) => connect(relay)));
    // One relay after the other: only one party may receive from a client.
    for (const relay of relays) await untilKnown(relay, each);
    return each as [RelayClient, RelayClient, RelayClient];
  }

  /** Waits until packets from a client of `relay` reach all of `peers`. */
  async function untilKnown(relay: PlainRelay, peers: RelayClient[]): Promise<void> {
    const probe = await connect(relay);
    for (const peer of peers) await untilReached(probe, peer);
    probe.close();
  }

  it('carries packets between all of its clients, once, whole and in order', async () => {
    const [a, b, c] = await oneEach();
    await Promise.all([stream(a, b, 1000), stream(b, c, 1000), stream(c, a, 1000)]);
    await Promise.all([stream(b, a, 1000), stream(c, b, 1000), stream(a, c, 1000)]);
    for (const size of [0, 1, 65_536]) {
      await a.send(c.publicKey, Buffer.alloc(size, 9));
      expect((await nextPacket(c, a)).data).toEqual(Buffer.alloc(size, 9));
    }
  });

  it('does not send packets in circles', async () => {
    const [a, b] = await oneEach();
    // Shards publish their figures at the end of a turn; a check takes one.
    await Promise.all(relays.map(({ server }) => server.consistencyCheck()));
    const before = relays.map((relay) => relay.figure('packets_forwarded_out'));
    await stream(a, b, 100);
    const forwarded = () => relays.map((relay, index) => relay.figure('packets_forwarded_out') - before[index]!);
    await expect.poll(() => forwarded()[0]).toBe(100);
    await Promise.all(relays.map(({ server }) => server.consistencyCheck()));
    expect(forwarded()).toEqual([100, 0, 0]);
    expect(relays[1]!.figure('packets_dropped', 'unknown_dest_on_fwd', 'other')).toBe(0);
  });

  it('tells a client that a peer of another relay has gone, and lets it come back elsewhere', async () => {
    const key = PrivateKey.generate();
    const [first] = [await connect(relays[0]!, key)];
    const raw = await (await RawClient.dial(relays[2]!.port, undefined, ADDRESSES[2])).open();
    await reach(first, raw);
    first.close();
    expect(await raw.expectPeerGone()).toEqual({ key: key.publicKey.hex, reason: 0 });
    const again = await connect(relays[1]!, key);
    await reach(again, raw);
    raw.destroy();
  });

  /** Sends until a packet arrived at a client of another relay. */
  async function reach(from: RelayClient, to: RawClient): Promise<void> {
    let arrived = false;
    const arriving = to.expectPacket().finally(() => {
      arrived = true;
    });
    while (!arrived) {
      await from.send(to.publicKey, Buffer.from('x'));
      await from.ping().catch(() => undefined);
    }
    expect((await arriving).source).toBe(from.publicKey.hex);
    // The others that were sent come before a packet that is waited for later.
    await from.send(to.publicKey, Buffer.from('last'));
    while ((await to.expectPacket()).packet.toString() !== 'last');
  }

  it('says that a key is nowhere', async () => {
    const raw = await (await RawClient.dial(relays[0]!.port, undefined, ADDRESSES[0])).open();
    const nobody = PrivateKey.generate().publicKey;
    await raw.send(nobody, discoPacket());
    expect(await raw.expectPeerGone()).toEqual({ key: nobody.hex, reason: 1 });
    raw.destroy();
  });

  it('prefers a client that is here to the same key elsewhere, and uses that when it has gone', async () => {
    const key = PrivateKey.generate();
    const elsewhere = await connect(relays[1]!, key);
    const sender = await connect(relays[0]!);
    await untilKnown(relays[0]!, [elsewhere]);
    const here = await connect(relays[0]!, key);
    await sender.send(key.publicKey, Buffer.from('here'));
    expect((await nextPacket(here, sender)).data.toString()).toBe('here');
    here.close();
    await expect.poll(() => relays[0]!.figure('gauge_current_connections')).toBe(3);
    await sender.send(key.publicKey, Buffer.from('elsewhere'));
    expect((await nextPacket(elsewhere, sender)).data.toString()).toBe('elsewhere');
  });

  it('heals when a relay that was ended is back', async () => {
    const [a, b] = await oneEach();
    const middle = relays[1]!;
    const hosts = relays.map(({ host }) => host);
    await middle.server.close();
    await relays[0]!.log.line(new RegExp(`mesh\\("${middle.address}:${middle.port}"\\): reconnected; clearing`));
    await relays[0]!.log.line(new RegExp(`mesh\\("${middle.address}:${middle.port}"\\): mesh connect: `));
    await middle.start(hosts);
    const back = await connect(middle);
    await Promise.all([untilKnown(relays[0]!, [back]), untilKnown(middle, [a])]);
    await Promise.all([stream(a, back, 200), stream(back, a, 200)]);
    b.close();
  });
});

describe('a relay that is in its own list of hosts', () => {
  const listing = (port: number, log: LogWatch) =>
    new Server(PrivateKey.generate(), {
      shards: 1,
      mesh: { key: MESH_KEY, with: [`http://127.0.0.1:${port}`, `http://localhost:${port}`] },
      logger: log,
    });

  /** Resolves when it found itself by both names, with whatever it said. */
  async function selfFound(log: LogWatch): Promise<void> {
    await log.line(/detected self-connect/, 2);
    expect(log.lines.filter((line) => !line.includes('detected self-connect; ignoring host'))).toEqual([]);
  }

  it('finds itself by each name and warns of nothing, since it dials when it listens', async () => {
    const [port, log] = [await freePort(), new LogWatch()];
    const server = listing(port, log);
    await server.ready();
    expect(log.lines).toEqual([]);
    await server.listen({ host: '127.0.0.1', port });
    await selfFound(log);
    await server.close();
  });

  it('does so too where another server listens for it', async () => {
    const [port, log] = [await freePort(), new LogWatch()];
    const server = listing(port, log);
    const httpServer = createServer();
    server.attach(httpServer);
    await server.ready();
    httpServer.listen(port, '127.0.0.1');
    await selfFound(log);
    await server.close();
    httpServer.close();
  });
});

describe('a relay that nobody may mesh with', () => {
  it('ends a link with another mesh key, which goes on trying and says once why', async () => {
    const [strict, stranger] = [new LogWatch(), new LogWatch()];
    const host = new Server(PrivateKey.generate(), { shards: 1, mesh: { key: MESH_KEY }, logger: strict });
    const { port } = await host.listen({ host: '127.0.0.2', port: 0 });
    const other = new Server(PrivateKey.generate(), {
      shards: 1,
      mesh: { key: 'b8'.repeat(32), retryInterval: 10 },
      logger: stranger,
    });
    other.addMeshPeer(`http://127.0.0.2:${port}`);
    const refused = () => (host.expVar() as { closed: Record<string, number> }).closed['insufficient_permissions']!;
    await expect.poll(refused, { timeout: 10_000 }).toBeGreaterThan(5);
    expect(stranger.lines).toEqual([
      expect.stringMatching(
        /^WARN mesh\("127\.0\.0\.2:\d+"\): Recv: .* does not accept our mesh key; check -mesh-psk-file/,
      ),
    ]);
    await other.close();
    await host.close();
  });
});
