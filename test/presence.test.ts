/** What PeerPresent says of a connection: its key, address, port and flags. */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { PrivateKey } from 'derplane';
import { describe, expect, it } from 'vitest';
import { clientInfoBody, Frame, frame, RawClient, upgradeHead } from './support/raw_client.js';
import { SHARD_COUNTS, sharedRelay, type TestRelay } from './support/relay.js';
import { PRESENT_LENGTH, PresentFlag, Watcher } from './support/watcher.js';

const meshKey = '3e'.repeat(32);
const NOT_IDEAL = 'Ideal-Node: 9b';
const { regular, meshPeer, prober, notIdeal } = PresentFlag;
const hasIpv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'));

interface Visitor {
  meshKey?: string;
  IsProber?: boolean;
  notIdeal?: boolean;
}

const visitors: [string, Visitor, number][] = [
  ['an ordinary client', {}, regular],
  ['a client with a wrong mesh key', { meshKey: '3f'.repeat(32) }, regular],
  ['a client that says it is no prober', { IsProber: false }, regular],
  ['a mesh peer', { meshKey }, meshPeer],
  ['a prober', { IsProber: true }, prober],
  ['a client whose ideal node is another', { notIdeal: true }, notIdeal],
  ['a mesh peer that is a prober', { meshKey, IsProber: true }, meshPeer | prober],
  ['a mesh peer whose ideal node is another', { meshKey, notIdeal: true }, meshPeer | notIdeal],
  ['a prober whose ideal node is another', { IsProber: true, notIdeal: true }, prober | notIdeal],
  ['all three', { meshKey, IsProber: true, notIdeal: true }, meshPeer | prober | notIdeal],
];

describe.each(SHARD_COUNTS)('PeerPresent from a relay with %i shard(s)', (shards) => {
  const shared = sharedRelay({ shards, mesh: { key: meshKey } });
  const withShared = (body: (relay: TestRelay) => Promise<void>) => body(shared());

  it.each(visitors)('has the flags of %s', (_, visitor, flags) =>
    withShared(async (relay) => {
      const early = await watcherAlone(relay);
      const clients = [];
      for (let shard = 0; shard < shards; shard++) {
        clients.push(await visit(relay, visitor, relay.keyOn(shard)));
        expect((await early.expectPresent(clients[shard]!)).flags).toBe(flags);
      }
      // Told of in a flood they have the same.
      const late = await Watcher.join(relay, { meshKey });
      const told = await late.flood(shards + 2);
      for (const client of clients) expect(told.get(client.publicKey.hex)?.flags).toBe(flags);
    }),
  );

  it('is 51 bytes: key, IPv4 as v4-in-v6, port, flags', () =>
    withShared(async (relay) => {
      const { client: watcher } = await watcherAlone(relay);
      for (let shard = 0; shard < shards; shard++) {
        const client = await relay.connect({ key: relay.keyOn(shard) });
        const body = await watcher.expectFrame(Frame.peerPresent);
        const port = Buffer.alloc(2);
        port.writeUInt16BE(client.socket.localPort as number);
        const address = Buffer.from('00000000000000000000ffff7f000001', 'hex');
        expect(body).toEqual(Buffer.concat([client.publicKey.bytes, address, port, Buffer.of(regular)]));
        expect(body).toHaveLength(PRESENT_LENGTH);
      }
    }));

  it('tells clients of different addresses apart', () =>
    withShared(async (relay) => {
      const watcher = await watcherAlone(relay);
      for (const localAddress of ['127.0.0.2', '127.9.8.7', '127.255.255.254']) {
        const client = await relay.dial(undefined, { localAddress });
        const { ip, port } = await watcher.expectPresent(await client.open());
        expect([ip, port]).toEqual([hexOf(localAddress), client.socket.localPort]);
      }
    }));

  it.skipIf(!hasIpv6)('has IPv6 addresses as they are, and IPv4 as IPv4 also from a listener for both', () =>
    withShared(async (relay) => {
      const watcher = await watcherAlone(relay);
      const both = await relay.listen({ host: '::' });
      for (const [host, hex] of [
        ['::1', '00000000000000000000000000000001'],
        ['127.0.0.1', '7f000001'],
      ] as const) {
        const client = await relay.dial(undefined, { port: both.port, host });
        const { ip, port } = await watcher.expectPresent(await client.open());
        expect([ip, port]).toEqual([hex, client.socket.localPort]);
      }
    }),
  );

  it.each([
    ['192.0.2.7:4711', 'c0000207', 4711],
    ['[2001:db8::1:2]:65535', '20010db8000000000000000000010002', 65_535],
    ['[::ffff:192.0.2.7]:1', 'c0000207', 1],
  ])('has the address that accept() was given: %s', (remote, hex, wantedPort) =>
    withShared(async (relay) => {
      const watcher = await watcherAlone(relay);
      const [served, near] = await tcpPair(relay);
      const ended = relay.server.accept(served, Buffer.alloc(0), remote);
      await near.handshake();
      const { ip, port } = await watcher.expectPresent(near);
      expect([ip, port]).toEqual([hex, wantedPort]);
      near.destroy();
      await ended;
      await watcher.expectGone(near);
    }),
  );

  it('of every connection of a key has that connection’s own address and flags', () =>
    withShared(async (relay) => {
      const watcher = await watcherAlone(relay);
      for (let shard = 0; shard < shards; shard++) {
        const key = relay.keyOn(shard);
        for (const [visitor, flags] of [
          [{}, regular],
          [{ IsProber: true }, prober],
          [{ notIdeal: true }, notIdeal],
        ] as const) {
          const client = await visit(relay, visitor, key);
          const told = await watcher.expectPresent(client);
          expect([told.port, told.flags]).toEqual([client.socket.localPort, flags]);
        }
      }
    }));
});

async function watcherAlone(relay: TestRelay): Promise<Watcher> {
  const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(0) });
  await watcher.expectPresent(watcher.client);
  return watcher;
}

/** A client past its handshake that says of itself what `visitor` holds. */
async function visit(relay: TestRelay, visitor: Visitor, key: PrivateKey): Promise<RawClient> {
  const client = await relay.dial(key);
  const lines = ['Upgrade: DERP', 'Connection: Upgrade', ...(visitor.notIdeal ? [NOT_IDEAL] : [])];
  await client.write(upgradeHead({ fastStart: true, lines }));
  const serverKey = await client.readServerKey();
  const { notIdeal: _, ...info } = visitor;
  const json = JSON.stringify({ version: 2, ...info });
  await client.write(frame(Frame.clientInfo, clientInfoBody(key, { serverKey, json })));
  await client.readServerInfo();
  return client;
}

/** Both ends of a connection that no relay accepted: one to serve, one that is a client. */
async function tcpPair(relay: TestRelay): Promise<[Socket, RawClient]> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection');
  const client = relay.track(await RawClient.dial((server.address() as { port: number }).port));
  const [served] = await accepted;
  server.close();
  return [served as Socket, client];
}

/** The four bytes of an IPv4 address. */
function hexOf(address: string): string {
  return Buffer.from(address.split('.').map(Number)).toString('hex');
}
