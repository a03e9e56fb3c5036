/** When a client hears that a peer is not here, or not here any more. */
import { describe, expect, it } from 'vitest';
import { discoPacket, Frame, type RawClient, sendPacketFrame } from './support/raw_client.js';
import { type Placement, placements, SHARD_COUNTS, type TestRelay, withRelay } from './support/relay.js';

const DISCONNECTED = 0;
const NOT_HERE = 1;
const BURST = 3;

describe.each(SHARD_COUNTS)('PeerGone from a relay with %i shard(s)', (shards) => {
  describe.each(placements(shards))('not here, %s', (placement) => {
    it('answers a disco packet to an unknown key', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, unknown] = await senderAndUnknown(relay, placement);
        await sender.send(unknown, discoPacket());
        expect(await sender.expectPeerGone()).toEqual({ key: unknown.hex, reason: NOT_HERE });
        await relay.untilCounter(['peer_gone_not_here_frames'], (value) => value === 1);
        await relay.untilDropped('unknown_dest', 'disco', (value) => value === 1);
      }));

    it.each([
      ['ordinary', Buffer.from('anybody?')],
      ['empty', Buffer.alloc(0)],
      ['almost a disco packet', discoPacket().subarray(0, -1)],
      ['of the right length with another magic', Buffer.alloc(62, 0x54)],
    ])('is not said for a packet that is %s', (_, packet) =>
      withRelay({ shards }, async (relay) => {
        const [sender, unknown] = await senderAndUnknown(relay, placement);
        await sender.send(unknown, packet);
        await relay.untilDropped('unknown_dest', 'other', (value) => value === 1);
        // The disco packet goes the same way behind it; its answer must be the first.
        const other = relay.keyNear(sender.publicKey, placement).publicKey;
        await sender.send(other, discoPacket());
        expect(await sender.expectPeerGone()).toEqual({ key: other.hex, reason: NOT_HERE });
      }),
    );

    it('is said 3 times in a row and then once a second', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, unknown] = await senderAndUnknown(relay, placement);
        const start = performance.now();
        await sender.write(Buffer.concat(Array.from({ length: 50 }, () => sendPacketFrame(unknown, discoPacket()))));
        await relay.untilDropped('unknown_dest', 'disco', (value) => value === 50);
        const answers = await answersBefore(
          sender,
          await relay.connect({ key: relay.keyNear(sender.publicKey, placement) }),
        );
        expect(answers).toBeGreaterThanOrEqual(BURST);
        expect(answers).toBeLessThanOrEqual(BURST + (performance.now() - start) / 1000);
        // One more comes as soon as the limit allows.
        do await sender.send(unknown, discoPacket());
        while ((await sender.settleCounting(Frame.peerGone)) === 0);
        expect(performance.now() - start).toBeGreaterThan(900);
      }));

    it('is limited per connection of the sender, not for all', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, unknown] = await senderAndUnknown(relay, placement);
        await sender.write(Buffer.concat(Array.from({ length: 50 }, () => sendPacketFrame(unknown, discoPacket()))));
        await relay.untilDropped('unknown_dest', 'disco', (value) => value === 50);
        const twin = await relay.connect({ key: sender.key });
        await twin.send(unknown, discoPacket());
        expect(await twin.expectPeerGone()).toEqual({ key: unknown.hex, reason: NOT_HERE });
      }));
  });

  describe.each(placements(shards))('disconnected, %s', (placement) => {
    it('tells those that received from a key when it is gone, once', () =>
      withRelay({ shards }, async (relay) => {
        const [leaver, listener] = await relay.pair(placement);
        const stranger = await relay.connect({ key: relay.keyNear(leaver.publicKey, placement) });
        for (let n = 0; n < 3; n++) {
          await leaver.send(listener.publicKey, Buffer.from('remember me'));
          await listener.expectPacket();
        }
        leaver.destroy();
        expect(await listener.expectPeerGone()).toEqual({ key: leaver.publicKey.hex, reason: DISCONNECTED });
        await relay.untilCounter(['peer_gone_disconnected_frames'], (value) => value === 1);
        await listener.settle();
        await stranger.settle();
      }));

    it('is said again when the key came back, sent again and left again', () =>
      withRelay({ shards }, async (relay) => {
        const [first, listener] = await relay.pair(placement);
        let leaver = first;
        for (let round = 0; round < 3; round++) {
          await leaver.send(listener.publicKey, Buffer.from(`round ${round}`));
          await listener.expectPacket();
          leaver.destroy();
          expect(await listener.expectPeerGone()).toEqual({ key: leaver.publicKey.hex, reason: DISCONNECTED });
          leaver = await relay.connect({ key: first.key });
        }
      }));

    it('is said when the last connection of the key leaves, not before', () =>
      withRelay({ shards }, async (relay) => {
        const [first, listener] = await relay.pair(placement);
        const second = await relay.connect({ key: first.key });
        await second.send(listener.publicKey, Buffer.from('remember me'));
        await listener.expectPacket();
        second.destroy();
        await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
        await first.send(listener.publicKey, Buffer.from('still here'));
        expect((await listener.expectPacket()).packet.toString()).toBe('still here');
        first.destroy();
        expect(await listener.expectPeerGone()).toEqual({ key: first.publicKey.hex, reason: DISCONNECTED });
      }));

    it('follows the last packet of the key that left', () =>
      withRelay({ shards }, async (relay) => {
        const [leaver, listener] = await relay.pair(placement);
        const packets = Array.from({ length: 10 }, (_, n) => sendPacketFrame(listener.publicKey, Buffer.of(n)));
        leaver.stream.end(Buffer.concat(packets));
        for (let n = 0; n < packets.length; n++) expect((await listener.expectPacket()).packet).toEqual(Buffer.of(n));
        expect(await listener.expectPeerGone()).toEqual({ key: leaver.publicKey.hex, reason: DISCONNECTED });
      }));
  });
});

async function senderAndUnknown(relay: TestRelay, placement: Placement) {
  const sender = await relay.connect({ key: relay.keyOn(0) });
  return [sender, relay.keyNear(sender.publicKey, placement).publicKey] as const;
}

/** Counts PeerGone frames that the relay had for `client` before a packet that `witness` now sends, and shortly after. */
async function answersBefore(client: RawClient, witness: RawClient): Promise<number> {
  await witness.send(client.publicKey, Buffer.from('marker'));
  let answers = 0;
  for (let type: number = Frame.peerGone; type !== Frame.recvPacket; ) {
    ({ type } = await client.nextFrame('the marker'));
    if (type === Frame.peerGone) answers++;
  }
  return answers + (await client.settleCounting(Frame.peerGone));
}
