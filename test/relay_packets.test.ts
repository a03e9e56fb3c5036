/** Packets reach their destination whole and in order, wherever the two keys live. */
import { describe, expect, it } from 'vitest';
import { discoPacket, type RawClient, sendPacketFrame } from './support/raw_client.js';
import { patterned, placements, SHARD_COUNTS, withRelay } from './support/relay.js';

const SIZES = [0, 1, 2, 100, 1280, 1400, 16_384, 65_535, 65_536];

/** Packets under way at once in tests that may lose none: half of the relay's queue. */
const WINDOW = 16;

describe.each(SHARD_COUNTS)('packets through a relay with %i shard(s)', (shards) => {
  describe.each(placements(shards))('%s', (placement) => {
    it('of 0 to 65,536 bytes arrive unchanged in both directions', () =>
      withRelay({ shards }, async (relay) => {
        const [a, b] = await relay.pair(placement);
        for (const size of SIZES) {
          await expectDelivery(a, b, patterned(size, 1));
          await expectDelivery(b, a, patterned(size, 2));
        }
      }));

    it('arrive in the order in which they were sent, 10,000 of them', () =>
      withRelay({ shards }, async (relay) => {
        const [a, b] = await relay.pair(placement);
        for (let first = 0; first < 10_000; first += WINDOW) {
          const numbers = Array.from({ length: WINDOW }, (_, i) => first + i);
          await a.write(Buffer.concat(numbers.map((n) => sendPacketFrame(b.publicKey, numbered(n)))));
          for (const n of numbers) expect((await b.expectPacket()).packet.equals(numbered(n))).toBe(true);
        }
      }));

    it('keep their order within disco and within the rest when both are mixed', () =>
      withRelay({ shards }, async (relay) => {
        const [a, b] = await relay.pair(placement);
        const texts = Array.from({ length: 200 }, (_, n) => `packet ${n}`);
        const seen: { disco: string[]; other: string[] } = { disco: [], other: [] };
        const packets = texts.map((text, n) => (n % 2 ? discoPacket(text) : Buffer.from(text)));
        for (let first = 0; first < packets.length; first += WINDOW) {
          const batch = packets.slice(first, first + WINDOW);
          await a.write(Buffer.concat(batch.map((packet) => sendPacketFrame(b.publicKey, packet))));
          for (const _ of batch) {
            const { packet } = await b.expectPacket();
            if (packet[0] === 0x54) seen.disco.push(packet.subarray(discoPacket().length).toString());
            else seen.other.push(packet.toString());
          }
        }
        expect(seen.other).toEqual(texts.filter((_, n) => n % 2 === 0));
        expect(seen.disco).toEqual(texts.filter((_, n) => n % 2 === 1));
      }));

    it('arrive whole when their frame is split at any byte', () =>
      withRelay({ shards }, async (relay) => {
        const [a, b] = await relay.pair(placement);
        const packet = patterned(40);
        const bytes = sendPacketFrame(b.publicKey, packet);
        for (let cut = 1; cut < bytes.length; cut++) {
          await a.write(bytes.subarray(0, cut));
          // A packet that goes the other way shows that the relay has gone on meanwhile.
          await expectDelivery(b, a, Buffer.from(`cut at ${cut}`));
          await a.write(bytes.subarray(cut));
          expect(await b.expectPacket()).toEqual({ source: a.publicKey.hex, packet });
        }
      }));

    it('arrive whole when their frames drip in byte by byte', () =>
      withRelay({ shards }, async (relay) => {
        const [a, b] = await relay.pair(placement);
        const packets = [patterned(3), patterned(0), patterned(20)];
        for (const byte of Buffer.concat(packets.map((packet) => sendPacketFrame(b.publicKey, packet)))) {
          await a.write(Buffer.of(byte));
        }
        for (const packet of packets) expect((await b.expectPacket()).packet).toEqual(packet);
      }));

    it('arrive whole when the largest is split at its borders', () =>
      withRelay({ shards }, async (relay) => {
        const [a, b] = await relay.pair(placement);
        const packet = patterned(65_536);
        const bytes = sendPacketFrame(b.publicKey, packet);
        for (const cut of [4, 5, 6, 36, 37, 38, 4096, 65_536, bytes.length - 1]) {
          await a.write(bytes.subarray(0, cut));
          await expectDelivery(b, a, Buffer.from(`cut at ${cut}`));
          await a.write(bytes.subarray(cut));
          expect((await b.expectPacket()).packet.equals(packet)).toBe(true);
        }
      }));

    it('come from the key that sent them when a read holds frames for several destinations', () =>
      withRelay({ shards }, async (relay) => {
        const [a, b] = await relay.pair(placement);
        const c = await relay.connect({ key: relay.keyNear(a.publicKey, 'on one shard') });
        const toEach = Array.from({ length: 10 }, (_, n) => numbered(n));
        const destinations = [b, c, a];
        await a.write(
          Buffer.concat(toEach.flatMap((packet) => destinations.map((to) => sendPacketFrame(to.publicKey, packet)))),
        );
        for (const to of destinations) {
          for (const packet of toEach) expect(await to.expectPacket()).toEqual({ source: a.publicKey.hex, packet });
        }
      }));
  });

  it('arrive from and at every shard', () =>
    withRelay({ shards }, async (relay) => {
      const clients = [...(await relay.onePerShard()), ...(await relay.onePerShard())];
      for (const from of clients) {
        for (const to of clients) await expectDelivery(from, to, Buffer.from(`${from.publicKey} to ${to.publicKey}`));
      }
    }));

  it('arrive when they follow ClientInfo in one write', () =>
    withRelay({ shards }, async (relay) => {
      for (const b of await relay.onePerShard()) {
        const a = await relay.dial();
        a.pipelineAfterHandshake(sendPacketFrame(b.publicKey, Buffer.from('early')));
        await a.open();
        expect(await b.expectPacket()).toEqual({ source: a.publicKey.hex, packet: Buffer.from('early') });
      }
    }));

  it('reach a client from the moment that it reads ServerInfo', () =>
    withRelay({ shards }, async (relay) => {
      const [sender] = await relay.onePerShard();
      for (let round = 0; round < 50; round++) {
        const newcomer = await relay.connect({ fastStart: round % 2 === 0 });
        await expectDelivery(sender as RawClient, newcomer, Buffer.from(`round ${round}`));
        newcomer.destroy();
      }
    }));
});

async function expectDelivery(from: RawClient, to: RawClient, packet: Buffer): Promise<void> {
  await from.send(to.publicKey, packet);
  const got = await to.expectPacket();
  expect(got.source).toBe(from.publicKey.hex);
  expect(got.packet.equals(packet)).toBe(true);
}

/** Packet `n`, of a length that varies with it. */
function numbered(n: number): Buffer {
  const packet = patterned(4 + ((n * 37) % 1400), n);
  packet.writeUInt32BE(n);
  return packet;
}
