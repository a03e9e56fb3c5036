/** Regions whose relays reach each other over TLS. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { TlsOptions } from 'node:tls';
import { PrivateKey, RelayClient, Server, type ServerOptions, TlsContext } from 'derplane';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FrameType, frameOf } from '../dist/protocol/frame.js';
import { type CertificateWish, makeCertificate, makeChain, type TestCertificate } from './support/certificates.js';
import { FakeRelay } from './support/fake_relay.js';
import { LogWatch } from './support/log_watch.js';
import { nextPacket, stream, untilReached } from './support/packets.js';
import { MESH_KEY, RegionRelay } from './support/region_relay.js';
import { SHARD_COUNTS } from './support/relay.js';

const PATIENCE = { timeout: 20_000 };
const ADDRESSES = ['127.0.0.2', '127.0.0.3', '127.0.0.4'];

let chain: Awaited<ReturnType<typeof makeChain>>;

beforeAll(async () => {
  chain = await makeChain();
});

/** A certificate of the region's authority, with the intermediate that it takes. */
async function certified(wish: CertificateWish) {
  const leaf = await makeCertificate({ issuer: chain.intermediate, ...wish });
  return { cert: leaf.cert + chain.intermediate.cert, key: leaf.keyPem };
}

/** A relay of the region with a name that only its certificate proves. */
class NamedRelay extends RegionRelay {
  readonly name = `derp${this.address.at(-1)}.test`;
  tls!: TlsContext;

  override async start(hosts: string[] = []): Promise<void> {
    this.tls = new TlsContext();
    this.tls.set(this.name, [await certified({ names: [this.name] })]);
    // Clients of the tests know no name.
    this.tls.set(this.address, [await certified({ names: [this.address] })]);
    await super.start(hosts, { mesh: { ca: chain.root.cert } }, this.tls);
  }

  /** As in the list of a region: the name, and where it is. */
  get host(): string {
    return `${this.name}:${this.port}/${this.address}`;
  }

  get url(): string {
    return `https://${this.address}:${this.port}/derp`;
  }

  /** What was logged of a link to `other`. */
  linesOf(other: NamedRelay): string[] {
    return this.log.lines.filter((line) => line.includes(`mesh("${other.name}:${other.port}"): `));
  }
}

describe.each(SHARD_COUNTS)('a region of three relays with %i shard(s) each', (shards) => {
  let relays: [NamedRelay, NamedRelay, NamedRelay];
  let clients: RelayClient[];

  beforeEach(async () => {
    clients = [];
    relays = ADDRESSES.map((address) => new NamedRelay(shards, address)) as typeof relays;
    for (const relay of relays) await relay.start();
    for (const relay of relays) for (const { host } of relays) relay.server.addMeshPeer(host);
    await Promise.all(relays.map(({ log }) => log.line(/self-connect/)));
    for (const relay of relays) await expect.poll(() => relay.figure('gauge_current_connections'), PATIENCE).toBe(2);
  });

  afterEach(async () => {
    for (const client of clients) client.close();
    await Promise.all(relays.map(({ server }) => server.consistencyCheck()));
    await Promise.all(relays.map(({ server }) => server.close()));
  });

  async function connectTo(relay: NamedRelay): Promise<RelayClient> {
    const client = new RelayClient(PrivateKey.generate(), relay.url, { ca: chain.root.cert });
    clients.push(client);
    await client.connect();
    return client;
  }

  /** One client a relay, all of which reach each other. */
  async function oneEach(): Promise<[RelayClient, RelayClient, RelayClient]> {
    const [a, b, c] = await Promise.all([connectTo(relays[0]), connectTo(relays[1]), connectTo(relays[2])]);
    for (const [from, to] of [
      [a, b],
      [b, c],
      [c, a],
      [b, a],
      [c, b],
      [a, c],
    ] as const)
      await untilReached(from, to);
    return [a, b, c];
  }

  it('carries packets between all of its clients, once, whole and in order', async () => {
    const [a, b, c] = await oneEach();
    // Shards publish their figures at the end of a turn; a check takes one.
    await Promise.all(relays.map(({ server }) => server.consistencyCheck()));
    const before = relays.map((relay) => relay.figure('packets_forwarded_out'));
    await Promise.all([stream(a, b, 500), stream(b, c, 500), stream(c, a, 500)]);
    await Promise.all([stream(b, a, 500), stream(c, b, 500), stream(a, c, 500)]);
    for (const size of [0, 1, 16_384, 65_536]) {
      await a.send(c.publicKey, Buffer.alloc(size, 9));
      expect((await nextPacket(c, a)).data).toEqual(Buffer.alloc(size, 9));
    }
    const forwarded = () => relays.map((relay, index) => relay.figure('packets_forwarded_out') - before[index]!);
    await expect.poll(forwarded, PATIENCE).toEqual([1_004, 1_000, 1_000]);
  });

  it('tells a client that a peer of another relay has gone', async () => {
    const [a, , c] = await oneEach();
    await relays[0].server.consistencyCheck();
    const remote = relays[0].figure('gauge_clients_remote');
    c.close();
    let message = await a.recv();
    while (message.type !== 'peerGone') message = await a.recv();
    expect(message.peer.hex).toBe(c.publicKey.hex);
    await expect.poll(() => relays[0].figure('gauge_clients_remote'), PATIENCE).toBe(remote - 1);
  });

  it('heals when a relay that was ended is back with another certificate', async () => {
    const [a, , c] = await oneEach();
    const [, middle] = relays;
    await middle.server.close();
    await relays[0].log.line(new RegExp(`mesh\\("${middle.name}:${middle.port}"\\): reconnected; clearing`));
    await relays[0].log.line(new RegExp(`mesh\\("${middle.name}:${middle.port}"\\): mesh connect: .*ECONNREFUSED`));
    await stream(a, c, 50);
    await middle.start(relays.map(({ host }) => host));
    const back = await connectTo(middle);
    for (const [from, to] of [
      [a, back],
      [back, a],
      [c, back],
      [back, c],
    ] as const)
      await untilReached(from, to);
    await Promise.all([stream(a, back, 100), stream(back, a, 100)]);
  });

  it('keeps its links when a certificate is swapped; new ones are by the new certificate', async () => {
    const [a, b, c] = await oneEach();
    const [first, middle, last] = relays;
    middle.tls.set(middle.name, [await certified({ names: ['other.test'] })]);
    await Promise.all([stream(a, b, 50), stream(b, a, 50)]);
    expect(first.linesOf(middle).filter((line) => line.startsWith('WARN'))).toEqual([]);

    await last.server.close();
    await last.start(relays.map(({ host }) => host));
    const refused = `WARN mesh("${middle.name}:${middle.port}"): mesh connect: https://${middle.name}:${middle.port}/derp: TLS: certificate: hostname mismatch: it is not for "${middle.name}"`;
    await last.log.line(/mesh connect: .*hostname mismatch/);
    const back = await connectTo(last);
    await untilReached(back, a);
    await untilReached(a, back);
    // All attempts together are one line, and the link to the other relay does not mind.
    expect(last.linesOf(middle)).toEqual([refused]);

    middle.tls.set(middle.name, [await certified({ names: [middle.name], type: 'rsa' })]);
    await untilReached(back, b);
    await untilReached(b, back);
    c.close();
  });
});

describe('a link over TLS', () => {
  const ends: (() => unknown)[] = [];
  let authority: TestCertificate;

  beforeAll(async () => {
    authority = await makeCertificate({ names: [], commonName: 'region', ca: true });
  });

  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  async function fakeRelay(more: TlsOptions = {}): Promise<FakeRelay> {
    const { cert, keyPem: key } = await makeCertificate({ names: ['derp.test'], issuer: authority });
    const relay = await FakeRelay.start({ tls: { cert, key, ...more } });
    ends.push(() => relay.close());
    return relay;
  }

  /** A relay with a link to what listens on a loopback port, said to be derp.test. */
  function linked(port: number, options: ServerOptions = {}): { server: Server; log: LogWatch } {
    const log = new LogWatch();
    const server = new Server(PrivateKey.generate(), {
      shards: 1,
      handshake: { threads: 1 },
      logger: log,
      ...options,
      mesh: {
        key: MESH_KEY,
        ca: authority.cert,
        retryInterval: 10,
        ...options.mesh,
      },
    });
    server.addMeshPeer(`derp.test:${port}/127.0.0.1`);
    ends.push(async () => {
      await server.consistencyCheck();
      await server.close();
    });
    return { server, log };
  }

  async function serverOf(serve: (socket: Socket) => void): Promise<number> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on('error', () => undefined));
      serve(socket);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    ends.push(async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    });
    return (server.address() as { port: number }).port;
  }

  const present = (key: PrivateKey) => frameOf(FrameType.PEER_PRESENT, key.publicKey.bytes, Buffer.alloc(19));

  /** Lets a link in and tells it of a key, all in one write; then a packet for that key comes over it. */
  async function expectLink(relay: FakeRelay, server: Server): Promise<void> {
    const connection = await relay.connection();
    const head = await connection.readHead();
    expect(head).toMatch(/^GET \/derp HTTP\/1\.1\r\n/);
    connection.switchProtocols();
    const opened = await connection.letIn();
    expect(opened.info.meshKey).toBe(MESH_KEY);
    const key = PrivateKey.generate();
    connection.write(present(key));
    expect((await connection.nextFrame()).type).toBe(FrameType.WATCH_CONNS);
    const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
    const client = new RelayClient(PrivateKey.generate(), `http://127.0.0.1:${port}/derp`);
    ends.push(() => client.close());
    await client.connect();
    await expect.poll(() => (server.expVar() as Record<string, number>).gauge_clients_remote, PATIENCE).toBe(1);
    await client.send(key.publicKey, Buffer.from('over the link'));
    const { type, body } = await connection.nextFrame();
    expect(type).toBe(FrameType.FORWARD_PACKET);
    expect(Buffer.from(body).subarray(64).toString()).toBe('over the link');
  }

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('is for %s too', async (maxVersion) => {
    const relay = await fakeRelay({ maxVersion });
    const { server } = linked(relay.port);
    await expectLink(relay, server);
  });

  it('does not mind where the bytes are cut', async () => {
    const relay = await fakeRelay();
    const port = await serverOf((socket) => {
      const upstream = connect(relay.port, '127.0.0.1').on('error', () => undefined);
      ends.push(() => upstream.destroy());
      socket.setNoDelay(true).pipe(upstream);
      let waiting = Buffer.alloc(0);
      const next = () => {
        if (waiting.length === 0) return;
        socket.write(waiting.subarray(0, 1));
        waiting = waiting.subarray(1);
        setImmediate(next);
      };
      upstream.on('data', (chunk: Buffer) => {
        const idle = waiting.length === 0;
        waiting = Buffer.concat([waiting, chunk]);
        if (idle) next();
      });
    });
    const { server } = linked(port);
    await expectLink(relay, server);
  });

  it('asks for the name of the list, whatever is dialled', async () => {
    const relay = await fakeRelay();
    linked(relay.port);
    const { socket } = await relay.connection();
    expect((socket as unknown as { servername: string }).servername).toBe('derp.test');
  });

  it.each<[string, (socket: Socket) => void, RegExp]>([
    [
      'speaks no TLS',
      (socket) => socket.write('hello there\r\n'),
      /TLS: .*: this port does not speak TLS; is it a plain one\?$/,
    ],
    ['hangs up', (socket) => socket.end(), /TLS: the other side closed the connection during the handshake$/],
  ])('to what %s costs one line, however often it is tried', async (_what, serve, message) => {
    let attempts = 0;
    const port = await serverOf((socket) => {
      attempts++;
      serve(socket);
    });
    const { server, log } = linked(port);
    await expect.poll(() => attempts, { timeout: 10_000 }).toBeGreaterThan(5);
    await server.close();
    expect(log.lines).toEqual([expect.stringMatching(message)]);
    expect(log.lines[0]).toMatch(
      new RegExp(`^WARN mesh\\("derp\\.test:${port}"\\): mesh connect: https://derp\\.test:${port}/derp: `),
    );
    ends.pop();
  });

  it('that is being made does not keep a relay from closing', async () => {
    let dialled = (_socket: Socket): void => undefined;
    const dial = new Promise<Socket>((resolve) => {
      dialled = resolve;
    });
    const { server, log } = linked(await serverOf((socket) => dialled(socket)));
    const socket = await dial;
    const closed = new Promise((resolve) => socket.resume().once('close', resolve));
    await server.close();
    await closed;
    expect(log.lines).toEqual([]);
    ends.pop();
  });

  it('needs a `mesh.ca` with certificates', () => {
    const make = () => new Server(PrivateKey.generate(), { mesh: { key: MESH_KEY, ca: 'hello' } });
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_DERP_CERTIFICATE' }));
    expect(make).toThrow(/^mesh\.ca: there is no PEM certificate/);
  });
});
