/** The mesh key: who may watch, forward and close, and who may not. */
import { PrivateKey } from 'derplane';
import { describe, expect, it } from 'vitest';
import { clientInfoBody, Frame, forwardPacketFrame, frame, type RawClient, upgradeHead } from './support/raw_client.js';
import { SHARD_COUNTS, sharedRelay, type TestRelay, withRelay } from './support/relay.js';
import { PresentFlag, Watcher } from './support/watcher.js';

const meshKey = `${'0123456789abcdef'.repeat(3)}fedcba9876543210`;
const zeros = '0'.repeat(64);
const stranger = PrivateKey.generate().publicKey;

const privileged: [string, Buffer][] = [
  ['WatchConns', frame(Frame.watchConns)],
  ['ClosePeer', frame(Frame.closePeer, stranger.bytes)],
  ['ForwardPacket', forwardPacketFrame(stranger, stranger, Buffer.from('sneaky'))],
];

describe.each(SHARD_COUNTS)('the mesh key of a relay with %i shard(s)', (shards) => {
  describe.each([
    ['that has one', meshKey],
    ['whose key is zeros', zeros],
    ['that has none', undefined],
  ])('%s', (_relay, own) => {
    const shared = sharedRelay({ shards, ...(own === undefined ? {} : { mesh: { key: own } }) });

    describe.each(privileged)('%s', (_frame, bytes) => {
      it.each([
        ['without a key', undefined],
        ['with a key that differs in the first digit', `f${meshKey.slice(1)}`],
        ['with a key that differs in the last digit', `${meshKey.slice(0, -1)}f`],
        ['with a key of zeros', zeros],
      ])('ends the connection of a client %s', (_client, offered) => expectDenied(shared(), offered, bytes));

      if (own !== meshKey) {
        it('ends the connection of a client with any key', () => expectDenied(shared(), meshKey, bytes));
        return;
      }
      it.each([
        ['as it is', meshKey],
        ['in upper case', meshKey.toUpperCase()],
        ['in both cases', meshKey.slice(0, 32) + meshKey.slice(32).toUpperCase()],
      ])('is allowed to a client that has the key %s', async (_key, offered) => {
        for (let shard = 0; shard < shards; shard++) {
          const mesh = await shared().connect({ key: shared().keyOn(shard), meshKey: offered });
          await mesh.write(bytes);
          await mesh.settleCounting(Frame.peerPresent);
          expect(mesh.closed).toBe(false);
        }
      });
    });
  });

  it('may be given to the relay in upper case', () =>
    withRelay({ shards, mesh: { key: meshKey.toUpperCase() } }, async (relay) => {
      const watcher = await Watcher.join(relay, { meshKey });
      expect((await watcher.expectPresent(watcher.client)).flags).toBe(PresentFlag.meshPeer);
    }));

  it('that is changed counts for connections made afterwards only', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const other = '77'.repeat(32);
      const [before, late] = [await relay.connect({ meshKey }), await relay.connect({ meshKey: other })];
      relay.server.setMeshKey(other);
      const after = await relay.connect({ meshKey: other });
      const outdated = await relay.connect({ meshKey });
      for (const mesh of [before, after]) {
        await mesh.write(frame(Frame.closePeer, stranger.bytes));
        await mesh.settle();
      }
      for (const client of [late, outdated]) {
        client.push(frame(Frame.closePeer, stranger.bytes));
        await client.expectClose();
      }
    }));

  it('opens nothing before ClientInfo is whole', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const client = await relay.dial();
      await client.write(upgradeHead({ fastStart: true }));
      const serverKey = await client.readServerKey();
      const info = frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey, meshKey }));
      // The watch is in the same write: it must be obeyed behind the handshake, not within.
      await client.write(Buffer.concat([info, frame(Frame.watchConns)]));
      await client.readServerInfo();
      await new Watcher(client).expectPresent(client);
    }));
});

describe.each(SHARD_COUNTS)('ClosePeer at a relay with %i shard(s)', (shards) => {
  it('closes every connection of the key, wherever it lives; watchers hear that it is gone', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(0) });
      await watcher.expectPresent(watcher.client);
      const closer = await relay.connect({ meshKey, key: relay.keyOn(shards - 1) });
      await watcher.expectPresent(closer);
      for (let shard = 0; shard < shards; shard++) {
        const key = relay.keyOn(shard);
        const victims = [await relay.connect({ key }), await relay.connect({ key })] as const;
        for (const victim of victims) await watcher.expectPresent(victim);
        await closer.write(frame(Frame.closePeer, key.publicKey.bytes));
        await Promise.all(victims.map((victim) => victim.expectClose()));
        await watcher.expectGone(victims[0]);
      }
      await relay.untilCounter(['closed', 'peer_closed'], (value) => value === 2 * shards);
    }));

  it('of a key that is not here does nothing', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const mesh = await relay.connect({ meshKey });
      const others = await relay.onePerShard();
      for (let shard = 0; shard < shards; shard++) {
        await mesh.write(frame(Frame.closePeer, relay.keyOn(shard).publicKey.bytes));
      }
      await mesh.settle();
      for (const other of others) await expectTalk(other, others);
    }));

  it('of one’s own key ends one’s own connection', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      for (let shard = 0; shard < shards; shard++) {
        const mesh = await relay.connect({ meshKey, key: relay.keyOn(shard) });
        mesh.push(frame(Frame.closePeer, mesh.publicKey.bytes));
        await mesh.expectClose();
      }
      await relay.untilCounter(['closed', 'peer_closed'], (value) => value === shards);
    }));

  it('closes a key again that came back', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const mesh = await relay.connect({ meshKey });
      for (let round = 0; round < 5; round++) {
        for (let shard = 0; shard < shards; shard++) {
          const victim = await relay.connect({ key: relay.keyOn(shard) });
          await mesh.write(frame(Frame.closePeer, victim.publicKey.bytes));
          await victim.expectClose();
        }
      }
    }));
});

/** A client on each shard that offers `offered` is an ordinary one, until it takes what is not its own. */
async function expectDenied(relay: TestRelay, offered: string | undefined, bytes: Buffer): Promise<void> {
  const others = await relay.onePerShard();
  const before = relay.counter('closed', 'insufficient_permissions');
  for (let shard = 0; shard < relay.shards; shard++) {
    const key = relay.keyOn(shard);
    const client = await relay.connect({ key, ...(offered === undefined ? {} : { meshKey: offered }) });
    await expectTalk(client, others);
    client.push(bytes);
    await client.expectClose();
    for (const other of others) expect((await other.expectPeerGone()).key).toBe(key.publicKey.hex);
  }
  await relay.untilCounter(['closed', 'insufficient_permissions'], (value) => value === before + relay.shards);
  for (const other of others) await other.settle();
}

async function expectTalk(from: RawClient, to: RawClient[]): Promise<void> {
  for (const other of to) {
    await from.send(other.publicKey, Buffer.from('hello'));
    expect((await other.expectPacket()).packet.toString()).toBe('hello');
  }
}
