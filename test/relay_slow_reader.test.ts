/** Clients that do not read: what they lose, and that nobody else notices. */
import { describe, expect, it } from 'vitest';
import { discoPacket, Frame, type RawClient } from './support/raw_client.js';
import { patterned, placements, SHARD_COUNTS, withRelay } from './support/relay.js';

/** More than two socket buffers of a loopback connection hold: 4 MiB to send and 6 MiB to receive by Linux's defaults. */
const FLOOD_BYTES = 24 * 1024 * 1024;
const FLOOD_PACKET = 65_536;
const FLOOD_COUNT = FLOOD_BYTES / FLOOD_PACKET;

describe.each(SHARD_COUNTS)('a frozen reader at a relay with %i shard(s)', (shards) => {
  describe.each(placements(shards))('sender and reader %s', (placement) => {
    it('delays no one', () =>
      withRelay({ shards, timeouts: { write: 0 } }, async (relay) => {
        const [sender, frozen] = await relay.pair(placement);
        const others = await relay.onePerShard();
        frozen.freeze();
        await flood(sender, frozen);
        await relay.untilDropped('queue_head', 'other', (value) => value > 0);
        const start = performance.now();
        for (let round = 0; round < 100; round++) {
          for (const other of others) {
            await sender.send(other.publicKey, patterned(1400));
            await other.expectPacket();
          }
        }
        // Each of these takes well under a millisecond; a write that blocks takes for ever.
        expect(performance.now() - start).toBeLessThan(5_000);
        expect(frozen.closed).toBe(false);
      }));

    it('is closed when it took nothing for the write timeout, and counted', () =>
      withRelay({ shards, timeouts: { write: 200 } }, async (relay) => {
        const [sender, frozen] = await relay.pair(placement);
        frozen.freeze();
        await flood(sender, frozen);
        await relay.untilCounter(['sclient_write_timeouts'], (value) => value === 1);
        await relay.untilCounter(['gauge_clients_local'], (value) => value === 1);
        await sender.settle();
        frozen.thaw();
        await frozen.expectClose();
      }));

    it('finds the newest packets in its queue, the oldest having made room', () =>
      withRelay({ shards, timeouts: { write: 0 }, queues: { depth: 8 } }, async (relay) => {
        const [sender, frozen] = await relay.pair(placement);
        frozen.freeze();
        await flood(sender, frozen);
        await relay.untilDropped('queue_head', 'other', (value) => value > 0);
        frozen.thaw();
        const seen = await packetNumbers(frozen, FLOOD_COUNT - 1);
        expect(seen).toEqual([...seen].sort((a, b) => a - b));
        expect(seen.slice(-8)).toEqual(Array.from({ length: 8 }, (_, n) => FLOOD_COUNT - 8 + n));
        await relay.untilDropped('queue_head', 'other', (value) => value === FLOOD_COUNT - seen.length);
      }));

    it('still finds its disco packets behind a flood of others', () =>
      withRelay({ shards, timeouts: { write: 0 } }, async (relay) => {
        const [sender, frozen] = await relay.pair(placement);
        frozen.freeze();
        await flood(sender, frozen);
        for (let n = 0; n < 32; n++) await sender.send(frozen.publicKey, discoPacket(`disco ${n}`));
        await flood(sender, frozen);
        await sender.settle();
        await relay.untilDropped('queue_head', 'other', (value) => value >= FLOOD_COUNT);
        frozen.thaw();
        for (let n = 0; n < 32; ) {
          const { packet } = await frozen.expectPacket();
          if (packet.length === FLOOD_PACKET) continue;
          expect(packet).toEqual(discoPacket(`disco ${n++}`));
        }
        expect(relay.dropped('queue_head', 'disco')).toBe(0);
      }));

    it('takes what waits for it along when it leaves, and that is counted', () =>
      withRelay({ shards, timeouts: { write: 0 } }, async (relay) => {
        const [sender, frozen] = await relay.pair(placement);
        frozen.freeze();
        await flood(sender, frozen);
        await relay.untilDropped('queue_head', 'other', (value) => value > 0);
        frozen.destroy();
        await relay.untilDropped('gone_disconnected', 'other', (value) => value > 0);
        await relay.untilAllAccountedFor();
      }));
  });

  it('loses nothing in a burst that the kernel takes', () =>
    withRelay({ shards }, async (relay) => {
      const [sender, reader] = await relay.pair('on one shard');
      // 1,000 packets in one write: far beyond the queue's 32, and no loss since the socket is writable.
      await sender.write(Buffer.concat(Array.from({ length: 1000 }, (_, n) => numberedFrame(reader, n, 100))));
      for (let n = 0; n < 1000; n++) expect((await reader.expectPacket()).packet.readUInt32BE()).toBe(n);
    }));
});

function numberedFrame(to: RawClient, n: number, length: number): Buffer {
  const bytes = Buffer.alloc(5 + 32 + length);
  bytes.writeUInt8(Frame.sendPacket);
  bytes.writeUInt32BE(32 + length, 1);
  bytes.set(to.publicKey.bytes, 5);
  bytes.writeUInt32BE(n, 37);
  return bytes;
}

/** Numbered packets of the largest size, until surely nobody holds more; returns when the relay has read them. */
async function flood(from: RawClient, to: RawClient): Promise<void> {
  for (let n = 0; n < FLOOD_COUNT; n++) await from.write(numberedFrame(to, n, FLOOD_PACKET));
  await from.settle();
}

/** Numbers of the packets that come, up to and including `last`. */
async function packetNumbers(client: RawClient, last: number): Promise<number[]> {
  const numbers: number[] = [];
  while (numbers.at(-1) !== last) numbers.push((await client.expectPacket()).packet.readUInt32BE());
  return numbers;
}
