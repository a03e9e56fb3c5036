/** Clients that stop at any point: by a reset, by closing, by closing one half. Nothing of them stays, nobody else notices. */
import { describe, expect, it } from 'vitest';
import { clientInfoBody, Frame, frame, type RawClient, sendPacketFrame, upgradeHead } from './support/raw_client.js';
import { patterned, SHARD_COUNTS, type TestRelay, withRelay } from './support/relay.js';

/** Steps of a connection's life, each going on from the one before. */
const steps: [string, (client: RawClient, peer: RawClient) => Promise<unknown>][] = [
  ['having sent nothing', async () => undefined],
  ['in the middle of the request head', (client) => client.write(upgradeHead().subarray(0, 20))],
  ['behind the request head', (client) => client.write(upgradeHead().subarray(20))],
  [
    'behind ServerKey',
    async (client) => {
      await client.readHead();
      await client.readServerKey();
    },
  ],
  ['in the middle of the header of ClientInfo', (client) => client.write(clientInfo(client).subarray(0, 3))],
  ['in the middle of ClientInfo', (client) => client.write(clientInfo(client).subarray(3, 60))],
  ['behind ClientInfo', (client) => client.write(clientInfo(client).subarray(60))],
  ['behind ServerInfo', (client) => client.readServerInfo()],
  ['in the middle of the header of a frame', (client, peer) => client.write(packet(peer).subarray(0, 2))],
  ['in the middle of a packet', (client, peer) => client.write(packet(peer).subarray(2, 30_000))],
  ['behind a packet', (client, peer) => client.write(packet(peer).subarray(30_000))],
];

const endings: [string, (client: RawClient) => void][] = [
  ['resets', (client) => client.reset()],
  ['closes', (client) => client.destroy()],
  ['closes its sending half', (client) => void client.stream.end()],
];

describe.each(SHARD_COUNTS)('a relay with %i shard(s) forgets a client', (shards) => {
  describe.each(endings)('that %s', (_, end) => {
    it.each(steps.map(([when], index) => [when, index] as const))('%s', (_, index) =>
      withRelay({ shards }, async (relay) => {
        const peers = await relay.onePerShard();
        for (const peer of peers) {
          const client = await relay.dial();
          for (const [, go] of steps.slice(0, index + 1)) await go(client, peer);
          end(client);
          await client.expectClose();
        }
        await expectOnlyTheseAreLeft(relay, peers);
      }),
    );
  });

  it('many at once, each at another point', () =>
    withRelay({ shards }, async (relay) => {
      const peers = await relay.onePerShard();
      const leave = async (n: number) => {
        const client = await relay.dial();
        const peer = peers[n % peers.length] as RawClient;
        for (const [, go] of steps.slice(0, 1 + (n % steps.length))) await go(client, peer);
        endings[n % endings.length]?.[1](client);
        await client.expectClose();
      };
      await Promise.all(Array.from({ length: 132 }, (_, n) => leave(n)));
      await expectOnlyTheseAreLeft(relay, peers);
    }));
});

/** Sealed once per client: its parts are written in several steps. */
const sealed = new WeakMap<RawClient, Buffer>();

function clientInfo(client: RawClient): Buffer {
  let bytes = sealed.get(client);
  if (!bytes) {
    bytes = frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey: client.serverKey as Buffer }));
    sealed.set(client, bytes);
  }
  return bytes;
}

function packet(peer: RawClient): Buffer {
  return sendPacketFrame(peer.publicKey, patterned(60_000));
}

async function expectOnlyTheseAreLeft(relay: TestRelay, peers: RawClient[]): Promise<void> {
  await relay.untilCounter(['gauge_clients_local'], (value) => value === peers.length);
  await relay.untilCounter(['gauge_current_connections'], (value) => value === peers.length);
  const newcomer = await relay.connect();
  for (const peer of peers) {
    await peer.send(newcomer.publicKey, Buffer.from('hello'));
    expect((await newcomer.expectPacket()).source).toBe(peer.publicKey.hex);
  }
}
