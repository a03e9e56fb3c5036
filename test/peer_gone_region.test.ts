/** PeerGone(disconnected): a key is gone when neither this relay nor any forwarder has it, whoever brought its packets. */
import type { PacketForwarder, PrivateKey, PublicKey } from 'derplane';
import { describe, expect, it } from 'vitest';
import { discoPacket, forwardPacketFrame, type RawClient, sendPacketFrame } from './support/raw_client.js';
import { placements, SHARD_COUNTS, type TestRelay, withRelay } from './support/relay.js';

const meshKey = '5a'.repeat(32);
const DISCONNECTED = 0;
const nowhere: PacketForwarder = { forwardPacket: () => undefined };

describe.each(SHARD_COUNTS)('a key that leaves the region, at a relay with %i shard(s)', (shards) => {
  describe.each(placements(shards))('receiver and key %s', (placement) => {
    /** A mesh peer, a receiver and a key that lives elsewhere. */
    async function cast(relay: TestRelay): Promise<[RawClient, RawClient, PrivateKey]> {
      const receiver = await relay.connect({ key: relay.keyOn(0) });
      const mesh = await relay.connect({ key: relay.keyOn(shards - 1), meshKey });
      return [mesh, receiver, relay.keyNear(receiver.publicKey, placement)];
    }

    it('is told to those that received from it by forwarding, when its forwarder goes', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, receiver, { publicKey: remote }] = await cast(relay);
        const bystander = await relay.connect({ key: relay.keyNear(remote, placement) });
        await addForwarder(relay, remote, nowhere);
        await forwarded(mesh, remote, receiver);
        await removeForwarder(relay, remote, nowhere);
        expect(await receiver.expectPeerGone()).toEqual({ key: remote.hex, reason: DISCONNECTED });
        await relay.untilCounter(['peer_gone_disconnected_frames'], (value) => value === 1);
        for (const client of [receiver, bystander, mesh]) await client.settle();
      }));

    it('is told again when it came back, sent again and left again', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, receiver, { publicKey: remote }] = await cast(relay);
        for (let round = 0; round < 3; round++) {
          await addForwarder(relay, remote, nowhere);
          await forwarded(mesh, remote, receiver);
          await removeForwarder(relay, remote, nowhere);
          expect(await receiver.expectPeerGone()).toEqual({ key: remote.hex, reason: DISCONNECTED });
          await receiver.settle();
        }
      }));

    it('is not told again when it came back and sent nothing', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, receiver, { publicKey: remote }] = await cast(relay);
        await addForwarder(relay, remote, nowhere);
        await forwarded(mesh, remote, receiver);
        await removeForwarder(relay, remote, nowhere);
        await receiver.expectPeerGone();
        for (let round = 0; round < 3; round++) {
          await addForwarder(relay, remote, nowhere);
          await removeForwarder(relay, remote, nowhere);
          await relay.untilCounter(['gauge_clients_remote'], (value) => value === 0);
        }
        await expectNothingMore(relay, [receiver]);
      }));

    it('is here as long as one of several forwarders has it', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, receiver, { publicKey: remote }] = await cast(relay);
        const forwarders: PacketForwarder[] = [{ ...nowhere }, { ...nowhere }, { ...nowhere }];
        for (const forwarder of forwarders) await addForwarder(relay, remote, forwarder);
        await forwarded(mesh, remote, receiver);
        for (const forwarder of forwarders.slice(0, 2)) await removeForwarder(relay, remote, forwarder);
        await relay.untilCounter(['multiforwarder_deleted'], (value) => value === 1);
        await expectNothingMore(relay, [receiver]);
        await removeForwarder(relay, remote, forwarders[2]!);
        expect(await receiver.expectPeerGone()).toEqual({ key: remote.hex, reason: DISCONNECTED });
      }));

    it('is here as long as it is connected, though its forwarder goes', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, receiver, key] = await cast(relay);
        await addForwarder(relay, key.publicKey, nowhere);
        await forwarded(mesh, key.publicKey, receiver);
        const local = await relay.connect({ key });
        await removeForwarder(relay, key.publicKey, nowhere);
        await expectNothingMore(relay, [receiver]);
        local.destroy();
        expect(await receiver.expectPeerGone()).toEqual({ key: key.publicKey.hex, reason: DISCONNECTED });
      }));

    it('is here as long as somebody forwards to it, though its connections go', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [, receiver, key] = await cast(relay);
        const locals = [await relay.connect({ key }), await relay.connect({ key })];
        await locals[0]!.send(receiver.publicKey, Buffer.from('from here'));
        await receiver.expectPacket();
        await addForwarder(relay, key.publicKey, nowhere);
        for (const local of locals) local.destroy();
        await relay.untilCounter(['gauge_clients_remote'], (value) => value === 1);
        await expectNothingMore(relay, [receiver]);
        await removeForwarder(relay, key.publicKey, nowhere);
        expect(await receiver.expectPeerGone()).toEqual({ key: key.publicKey.hex, reason: DISCONNECTED });
        await receiver.settle();
      }));

    it('is told when its connection goes, to one that received by forwarding only', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, receiver, key] = await cast(relay);
        await forwarded(mesh, key.publicKey, receiver);
        const local = await relay.connect({ key });
        local.destroy();
        expect(await receiver.expectPeerGone()).toEqual({ key: key.publicKey.hex, reason: DISCONNECTED });
      }));

    it('is told once to a receiver that got packets in both ways', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, receiver, key] = await cast(relay);
        const local = await relay.connect({ key });
        for (let n = 0; n < 3; n++) {
          await forwarded(mesh, key.publicKey, receiver);
          await local.send(receiver.publicKey, Buffer.from('from here'));
          await receiver.expectPacket();
        }
        local.destroy();
        expect(await receiver.expectPeerGone()).toEqual({ key: key.publicKey.hex, reason: DISCONNECTED });
        await expectNothingMore(relay, [receiver]);
      }));

    it('is told to every receiver, and to nobody else', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const leaver = await relay.connect({ key: relay.keyOn(0) });
        const receivers: RawClient[] = [];
        const others: RawClient[] = [];
        for (let n = 0; n < 8; n++) {
          receivers.push(await relay.connect({ key: relay.keyNear(leaver.publicKey, placement) }));
          others.push(await relay.connect({ key: relay.keyNear(leaver.publicKey, placement) }));
        }
        for (const receiver of receivers) await leaver.send(receiver.publicKey, Buffer.from('remember me'));
        for (const receiver of receivers) await receiver.expectPacket();
        // These send to the leaver, which makes nobody a receiver but itself.
        for (const other of others) await other.send(leaver.publicKey, Buffer.from('who are you?'));
        for (let n = 0; n < others.length; n++) await leaver.expectPacket();
        leaver.destroy();
        for (const receiver of receivers) {
          expect(await receiver.expectPeerGone()).toEqual({ key: leaver.publicKey.hex, reason: DISCONNECTED });
        }
        await relay.untilCounter(['peer_gone_disconnected_frames'], (value) => value === receivers.length);
        await expectNothingMore(relay, [...receivers, ...others]);
      }));

    it('is told to the connection that received, not to another of the same key', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [leaver, first] = await relay.pair(placement);
        const second = await relay.connect({ key: first.key });
        await leaver.send(first.publicKey, Buffer.from('to the active one'));
        await second.expectPacket();
        leaver.destroy();
        expect(await second.expectPeerGone()).toEqual({ key: leaver.publicKey.hex, reason: DISCONNECTED });
        second.destroy();
        await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
        await expectNothingMore(relay, [first]);
      }));

    it('is told of each of many keys that leave at once', () =>
      withRelay({ shards }, async (relay) => {
        const receiver = await relay.connect({ key: relay.keyOn(0) });
        const leavers: RawClient[] = [];
        for (let n = 0; n < 100; n++) {
          const leaver = await relay.connect({ key: relay.keyNear(receiver.publicKey, placement) });
          await leaver.write(sendPacketFrame(receiver.publicKey, Buffer.of(n)));
          await receiver.expectPacket();
          leavers.push(leaver);
        }
        for (const leaver of leavers) leaver.destroy();
        const gone = new Set<string>();
        for (const _ of leavers) gone.add((await receiver.expectPeerGone()).key);
        expect(gone).toEqual(new Set(leavers.map((leaver) => leaver.publicKey.hex)));
        await expectNothingMore(relay, [receiver]);
      }));

    it('that was never here is not gone: not here is another thing', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, receiver, { publicKey: remote }] = await cast(relay);
        await forwarded(mesh, remote, receiver);
        mesh.destroy();
        await relay.untilCounter(['gauge_clients_local'], (value) => value === 1);
        await receiver.send(remote, discoPacket());
        const told = await receiver.expectPeerGone();
        expect(told).toEqual({ key: remote.hex, reason: 1 });
      }));
  });
});

/** Registers a forwarder; the shards know of it once they have answered the check, which goes the same way behind it. */
async function addForwarder(relay: TestRelay, key: PublicKey, forwarder: PacketForwarder): Promise<void> {
  relay.server.addPacketForwarder(key, forwarder);
  await relay.server.consistencyCheck();
}

async function removeForwarder(relay: TestRelay, key: PublicKey, forwarder: PacketForwarder): Promise<void> {
  relay.server.removePacketForwarder(key, forwarder);
  await relay.server.consistencyCheck();
}

/** A packet of `source` comes over the mesh and is received. */
async function forwarded(mesh: RawClient, source: PublicKey, receiver: RawClient): Promise<void> {
  await mesh.write(forwardPacketFrame(source, receiver.publicKey, Buffer.from('from afar')));
  expect(await receiver.expectPacket()).toEqual({ source: source.hex, packet: Buffer.from('from afar') });
}

/**
 * What shards do about a key that left they do in the background: a packet from one more key that comes and leaves must be told of
 * before anything of that key's could be overlooked, since notices keep their order.
 */
async function expectNothingMore(relay: TestRelay, clients: RawClient[]): Promise<void> {
  for (let shard = 0; shard < relay.shards; shard++) {
    const last = await relay.connect({ key: relay.keyOn(shard) });
    for (const client of clients) {
      await last.send(client.publicKey, Buffer.from('and now?'));
      expect((await client.expectPacket()).source).toBe(last.publicKey.hex);
    }
    last.destroy();
    for (const client of clients) expect((await client.expectPeerGone()).key).toBe(last.publicKey.hex);
  }
  for (const client of clients) await client.settle();
}
