/** Frames that come in parts, with others right behind them. */

import { PrivateKey } from 'derplane';
import { describe, expect, it } from 'vitest';
import { FrameType, frameOf } from '../dist/protocol/frame.js';
import { FakeRelay } from './support/fake_relay.js';
import { discoPacket, Frame, frame, sendPacketFrame } from './support/raw_client.js';
import { patterned, SHARD_COUNTS, type TestRelay, withRelay } from './support/relay.js';

const MESH_KEY = '2b'.repeat(32);

/** Writes up to `cut`, and the rest when the relay holds what came first. */
async function inTwoParts(relay: TestRelay, write: (bytes: Buffer) => Promise<void>, bytes: Buffer, cut: number) {
  await write(bytes.subarray(0, cut));
  await relay.untilCounter(['gauge_held_bytes'], (held) => held === cut);
  await write(bytes.subarray(cut));
}

describe.each(SHARD_COUNTS)('a relay with %i shard(s)', (shards) => {
  it.each([5, 8, 12])('answers a Ping cut at byte %i and leaves what follows whole', (cut) =>
    withRelay({ shards }, async (relay) => {
      const [from, to] = await relay.pair('on one shard');
      const packet = patterned(1000);
      const ping = frame(Frame.ping, Buffer.from('12345678'));
      const bytes = Buffer.concat([ping, sendPacketFrame(to.publicKey, packet)]);
      await inTwoParts(relay, (part) => from.write(part), bytes, cut);
      expect(await from.expectFrame(Frame.pong)).toEqual(Buffer.from('12345678'));
      expect(await to.expectPacket()).toEqual({ source: from.publicKey.hex, packet });
    }),
  );

  it('says that a peer is not here and leaves what follows whole', () =>
    withRelay({ shards }, async (relay) => {
      const [from, to] = await relay.pair('on one shard');
      const nobody = relay.keyNear(from.publicKey, 'on one shard').publicKey;
      const packet = patterned(1000);
      const bytes = Buffer.concat([sendPacketFrame(nobody, discoPacket()), sendPacketFrame(to.publicKey, packet)]);
      await inTwoParts(relay, (part) => from.write(part), bytes, 50);
      expect(await from.expectPeerGone()).toEqual({ key: nobody.hex, reason: 1 });
      expect(await to.expectPacket()).toEqual({ source: from.publicKey.hex, packet });
    }));

  it('forwards a packet over a link and leaves what follows whole', async () => {
    const other = await FakeRelay.start();
    await withRelay({ shards, mesh: { key: MESH_KEY } }, async (relay) => {
      relay.server.addMeshPeer(other.url.replace('/derp', ''));
      const link = await other.client();
      const [from, to] = await relay.pair('on one shard');
      const there = PrivateKey.generate().publicKey;
      link.write(frameOf(FrameType.PEER_PRESENT, there.bytes));
      await relay.untilCounter(['gauge_clients_remote'], (count) => count === 1);
      const packets = [patterned(3000, 1), patterned(1000, 2)] as const;
      const bytes = Buffer.concat([sendPacketFrame(there, packets[0]), sendPacketFrame(to.publicKey, packets[1])]);
      await inTwoParts(relay, (part) => from.write(part), bytes, 2000);
      expect(await to.expectPacket()).toEqual({ source: from.publicKey.hex, packet: packets[1] });
      expect((await link.nextFrame()).type).toBe(FrameType.WATCH_CONNS);
      const forwarded = await link.nextFrame();
      expect(forwarded.type).toBe(FrameType.FORWARD_PACKET);
      expect(forwarded.body.subarray(64)).toEqual(packets[0]);
    });
    await other.close();
  });
});
