/** Regions of derplane and `derper` itself, linked over TLS in both directions. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { type Client, createPageServer, PrivateKey, Server, TlsContext } from 'derplane';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { makeCertificate, makeChain } from '../support/certificates.js';
import {
  buildGoDerper,
  GO_DERPER_TIMEOUT,
  type GoDerper,
  goDerperMissing,
  startGoDerper,
} from '../support/go_derper.js';
import { connectNamed } from '../support/named_client.js';
import { nextPacket, type Party, stream, untilReached } from '../support/packets.js';
import { freePort } from '../support/ports.js';

const MESH_KEY = '7d'.repeat(32);
/** `derper` waits 5 s between attempts. */
const HEALING_TIMEOUT = 120_000;
const PATIENCE = { timeout: 20_000 };

let folder: string;
let root: string;

/** A relay of either kind. */
abstract class Node {
  readonly address: string;
  readonly name: string;
  port = 0;

  constructor(number: number) {
    this.address = `127.0.0.${10 + number}`;
    this.name = `derp${number}.test`;
  }

  /** Takes a port, which it then keeps. */
  abstract reserve(): Promise<void>;
  abstract start(hosts: string[]): Promise<void>;
  abstract end(): Promise<void>;
  /** Packets that it forwarded to another relay, and got from one. */
  abstract forwarded(): Promise<{ out: number; in: number }>;

  get host(): string {
    return `${this.name}:${this.port}/${this.address}`;
  }

  get url(): URL {
    return new URL(`https://${this.name}:${this.port}/derp`);
  }
}

type Figures = Record<string, number>;

class OurNode extends Node {
  readonly #key = PrivateKey.generate();
  readonly #tls = new TlsContext();
  server: Server | undefined;

  override async reserve(): Promise<void> {
    this.port = await freePort(this.address);
    this.#tls.set(this.name, [await certify(this.name)]);
  }

  override async start(hosts: string[]): Promise<void> {
    this.server = new Server(this.#key, {
      shards: 2,
      handshake: { threads: 1 },
      mesh: { key: MESH_KEY, ca: root, with: hosts, retryInterval: 50 },
    });
    const { address: host, port } = this;
    await this.server.listen({ host, port, tls: this.#tls, httpServer: createPageServer() });
  }

  override async end(): Promise<void> {
    await this.server?.consistencyCheck();
    await this.server?.close();
    this.server = undefined;
  }

  override async forwarded() {
    await this.server!.consistencyCheck(); // figures are published by then
    const stats = this.server!.expVar() as Figures;
    return { out: stats.packets_forwarded_out!, in: stats.packets_forwarded_in! };
  }
}

class GoNode extends Node {
  #derper: GoDerper | undefined;

  override async reserve(): Promise<void> {
    this.port = await freePort(this.address);
    const { cert, key } = await certify(this.name);
    await writeFile(join(folder, `${this.name}.crt`), cert);
    await writeFile(join(folder, `${this.name}.key`), key);
  }

  override async start(hosts: string[]): Promise<void> {
    const { address, port } = this;
    this.#derper = await startGoDerper({
      address,
      port,
      tls: { hostname: this.name, folder },
      keyFile: join(folder, `${this.name}.json`),
      args: ['-mesh-psk-file', join(folder, 'psk'), '-mesh-with', hosts.join(',')],
      env: { SSL_CERT_FILE: join(folder, 'root.pem') },
    });
  }

  override async end(): Promise<void> {
    await this.#derper?.close();
    this.#derper = undefined;
  }

  override async forwarded() {
    const options = { host: this.address, port: this.port, servername: this.name, ca: root, path: '/debug/vars' };
    const page = await new Promise<Record<string, unknown>>((resolve, reject) => {
      const headers = { host: this.name };
      request({ ...options, headers, agent: false }, (response) => json(response).then(resolve as never, reject))
        .on('error', reject)
        .end();
    });
    const stats = page.derp as Figures;
    return { out: stats.packets_forwarded_out!, in: stats.packets_forwarded_in! };
  }
}

let chain: Awaited<ReturnType<typeof makeChain>>;

async function certify(name: string) {
  const leaf = await makeCertificate({ issuer: chain.intermediate, names: [name] });
  return { cert: leaf.cert + chain.intermediate.cert, key: leaf.keyPem };
}

describe.skipIf(goDerperMissing !== undefined)('a region over TLS', () => {
  beforeAll(async () => {
    await buildGoDerper();
    folder = await mkdtemp(join(tmpdir(), 'derplane-go-mesh-'));
    chain = await makeChain();
    root = chain.root.cert;
    await writeFile(join(folder, 'root.pem'), root);
    await writeFile(join(folder, 'psk'), MESH_KEY);
  }, GO_DERPER_TIMEOUT);

  afterAll(() => rm(folder, { recursive: true, force: true }));

  describe.each<[string, (typeof OurNode | typeof GoNode)[]]>([
    ['two of derplane and one derper', [OurNode, GoNode, OurNode]],
    ['one of derplane and two derpers', [GoNode, OurNode, GoNode]],
  ])('of %s', (_what, kinds) => {
    let nodes: Node[] = [];
    const clients: Client[] = [];

    afterEach(async () => {
      for (const client of clients.splice(0)) client.close();
      for (const node of nodes) await node.end();
    });

    async function startRegion(): Promise<void> {
      nodes = kinds.map((Kind, index) => new Kind(index + 1));
      for (const node of nodes) await node.reserve();
      const hosts = nodes.map(({ host }) => host);
      for (const node of nodes) await node.start(hosts);
    }

    async function connectTo(node: Node): Promise<Client> {
      const client = await connectNamed(node.url, node.address, root);
      clients.push(client);
      return client;
    }

    function pairs(parties: Party[]): [Party, Party][] {
      return parties.flatMap((from) => parties.filter((to) => to !== from).map((to): [Party, Party] => [from, to]));
    }

    async function expectRegion(parties: Party[]): Promise<void> {
      for (const [from, to] of pairs(parties)) await untilReached(from, to);
    }

    it('carries packets between all of its relays, once, whole and in order, and tells who left', async () => {
      await startRegion();
      const parties = await Promise.all(nodes.map(connectTo));
      await expectRegion(parties);
      const before = await Promise.all(nodes.map((node) => node.forwarded()));
      const [a, b, c] = parties as [Client, Client, Client];
      const count = 300;
      await Promise.all([stream(a, b, count), stream(b, c, count), stream(c, a, count)]);
      await Promise.all([stream(b, a, count), stream(c, b, count), stream(a, c, count)]);
      for (const [from, to] of pairs(parties)) {
        for (const size of [1, 16_384, 65_536]) {
          await from.send(to.publicKey, Buffer.alloc(size, 9));
          expect((await nextPacket(to, from)).data).toEqual(Buffer.alloc(size, 9));
        }
      }
      // Each relay forwarded what its client sent, and nothing that it got forwarded.
      const each = 2 * (count + 3);
      const moved = async () =>
        (await Promise.all(nodes.map((node) => node.forwarded()))).map((now, index) => ({
          out: now.out - before[index]!.out,
          in: now.in - before[index]!.in,
        }));
      await expect.poll(moved, PATIENCE).toEqual(nodes.map(() => ({ out: each, in: each })));

      b.close();
      for (const client of [a, c]) {
        let message = await client.recv();
        while (message.type !== 'peerGone') message = await client.recv();
        expect(message.peer.hex).toBe(b.publicKey.hex);
      }
    });

    it.each([0, 1, 2])('heals when relay %i was killed and is back', { timeout: HEALING_TIMEOUT }, async (index) => {
      await startRegion();
      const lost = nodes[index]!;
      const rest = nodes.filter((node) => node !== lost);
      const parties = await Promise.all(rest.map(connectTo));
      await expectRegion(parties);
      await lost.end();
      for (const [from, to] of pairs(parties)) await stream(from, to, 50);
      await lost.start(nodes.map(({ host }) => host));
      const all = [...parties, await connectTo(lost)];
      await expectRegion(all);
      for (const [from, to] of pairs(all)) await stream(from, to, 50);
    });
  });
});
