/**
 * The receive limit of clients: what exceeds it waits in the sender's socket, and nothing is lost. The rate here is one byte a second, so
 * that within a test only what the bucket holds passes; lifting the limit lets the rest through.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  clientInfoBody,
  discoPacket,
  Frame,
  forwardPacketFrame,
  frame,
  type RawClient,
  sendPacketFrame,
  upgradeHead,
} from './support/raw_client.js';
import { patterned, placements, SHARD_COUNTS, sharedRelay, type TestRelay } from './support/relay.js';

const meshKey = '4c'.repeat(32);

/** The least that a bucket holds: the largest packet and its key, which is also the most that a frame is charged. */
const BUCKET = 65_568;
const PACKET = 1000;
const CHARGE = 32 + PACKET;
/** Packets that a full bucket lets through, and more than those. */
const PASS = Math.floor(BUCKET / CHARGE);
const TOTAL = 200;
const WAITED = ['rate_limit_per_client_waited'];

describe.each(SHARD_COUNTS)('the receive limit of a relay with %i shard(s)', (shards) => {
  const shared = sharedRelay({ shards, mesh: { key: meshKey } });
  let relay: TestRelay;
  /** Frames that had waited when the test began. */
  let waited: number;

  beforeEach(() => {
    relay = shared();
    waited = relay.counter(...WAITED);
  });

  afterEach(() => setLimit(shared(), 0));

  const untilWaited = (count: number) => relay.untilCounter(WAITED, (value) => value === waited + count);

  describe.each(placements(shards))('sender and receiver %s', (placement) => {
    it('lets through what the bucket holds, holds back the rest, and loses nothing', async () => {
      const [sender, receiver] = await relay.pair(placement);
      await setLimit(relay, 1);
      sender.push(numberedPackets(receiver, 0, TOTAL));
      await expectNumbers(receiver, 0, PASS);
      await untilWaited(1);
      await receiver.settle();
      await setLimit(relay, 0);
      await expectNumbers(receiver, PASS, TOTAL);
      expect(await sender.settleCounting(Frame.health)).toBe(1);
      await relay.untilAllAccountedFor();
    });

    it('disturbs nobody else, nor what comes for the one that waits', async () => {
      const [sender, receiver] = await relay.pair(placement);
      const others = await relay.onePerShard();
      await setLimit(relay, 1);
      sender.push(numberedPackets(receiver, 0, TOTAL));
      await expectNumbers(receiver, 0, PASS);
      await untilWaited(1);
      await sender.expectFrame(Frame.health);
      for (const other of others) {
        for (let n = 0; n < 20; n++) {
          await other.send(receiver.publicKey, Buffer.of(n));
          expect(await receiver.expectPacket()).toEqual({ source: other.publicKey.hex, packet: Buffer.of(n) });
          await other.send(sender.publicKey, Buffer.of(n));
          expect(await sender.expectPacket()).toEqual({ source: other.publicKey.hex, packet: Buffer.of(n) });
        }
      }
      expect(relay.counter(...WAITED)).toBe(waited + 1);
      await setLimit(relay, 0);
      await expectNumbers(receiver, PASS, TOTAL);
    });

    it('set again gives clients that wait a new full bucket', async () => {
      const [sender, receiver] = await relay.pair(placement);
      await setLimit(relay, 1);
      sender.push(numberedPackets(receiver, 0, TOTAL));
      await untilWaited(1);
      await setLimit(relay, 1);
      await untilWaited(2);
      // The packet that waited may have been paid by the old bucket or by the new one.
      await expectNumbers(receiver, 0, 2 * PASS);
      const more = await receiver.settleCounting(Frame.recvPacket);
      expect(more).toBeLessThanOrEqual(1);
      await setLimit(relay, 0);
      await expectNumbers(receiver, 2 * PASS + more, TOTAL);
    });

    it('goes by its rate: what exceeds the bucket takes its time, and comes', async () => {
      const [sender, receiver] = await relay.pair(placement);
      const rate = 200_000;
      await setLimit(relay, rate);
      const start = performance.now();
      sender.push(numberedPackets(receiver, 0, TOTAL));
      await expectNumbers(receiver, 0, TOTAL);
      // Half of what it should take: clocks are coarse, and late is always possible.
      expect(performance.now() - start).toBeGreaterThan((((TOTAL * CHARGE - BUCKET) / rate) * 1000) / 2);
      expect(relay.counter(...WAITED)).toBeGreaterThan(waited);
    });

    it('does not hold for mesh peers', async () => {
      const mesh = await relay.connect({ key: relay.keyOn(0), meshKey });
      const receiver = await relay.connect({ key: relay.keyNear(mesh.publicKey, placement) });
      await setLimit(relay, 1);
      mesh.push(numberedPackets(receiver, 0, TOTAL));
      await expectNumbers(receiver, 0, TOTAL);
      const packets = Array.from({ length: TOTAL }, () =>
        forwardPacketFrame(mesh.publicKey, receiver.publicKey, patterned(PACKET)),
      );
      mesh.push(Buffer.concat(packets));
      for (let n = 0; n < TOTAL; n++) await receiver.expectPacket();
      await mesh.settle();
      expect(relay.counter(...WAITED)).toBe(waited);
    });

    it('holds for disco packets like for others', async () => {
      const [sender, receiver] = await relay.pair(placement);
      await setLimit(relay, 1);
      const packet = discoPacket('x'.repeat(PACKET - 62));
      sender.push(Buffer.concat(Array.from({ length: PASS + 1 }, () => sendPacketFrame(receiver.publicKey, packet))));
      for (let n = 0; n < PASS; n++) expect((await receiver.expectPacket()).packet).toEqual(packet);
      await untilWaited(1);
      await receiver.settle();
      await setLimit(relay, 0);
      expect((await receiver.expectPacket()).packet).toEqual(packet);
    });

    it('lets the largest packet through, whatever the burst', async () => {
      const [sender, receiver] = await relay.pair(placement);
      await setLimit(relay, 1, 1);
      await sender.send(receiver.publicKey, patterned(65_536));
      expect((await receiver.expectPacket()).packet.equals(patterned(65_536))).toBe(true);
      sender.push(frame(Frame.ping, patterned(8)));
      await untilWaited(1);
      await sender.expectFrame(Frame.health);
      await setLimit(relay, 0);
      expect(await sender.expectFrame(Frame.pong)).toEqual(patterned(8));
    });

    it('holds for each connection of a key by itself', async () => {
      const [first, receiver] = await relay.pair(placement);
      const second = await relay.connect({ key: first.key });
      await setLimit(relay, 1);
      for (const sender of [first, second]) {
        sender.push(numberedPackets(receiver, 0, PASS + 1));
        await expectNumbers(receiver, 0, PASS);
      }
      await untilWaited(2);
      await receiver.settle();
    });
  });

  it('holds for clients that connect afterwards, and each begins with a full bucket', async () => {
    const [receiver] = (await relay.onePerShard()) as [RawClient];
    await setLimit(relay, 1);
    for (let shard = 0; shard < shards; shard++) {
      const sender = await relay.connect({ key: relay.keyOn(shard) });
      sender.push(numberedPackets(receiver, 0, PASS + 1));
      await expectNumbers(receiver, 0, PASS);
      await untilWaited(shard + 1);
    }
    await receiver.settle();
  });

  it('is never announced: clients would drop what exceeds it', async () => {
    await setLimit(relay, 1000);
    const client = await relay.dial();
    await client.write(upgradeHead({ fastStart: true }));
    const serverKey = await client.readServerKey();
    await client.write(frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey })));
    expect(await client.readServerInfo()).toEqual({ version: 2 });
  });

  it('charges any frame its length, at most 65,568, its header being free', async () => {
    for (const client of await relay.onePerShard()) {
      const before = relay.counter(...WAITED);
      await setLimit(relay, 1, 2 * BUCKET + 8);
      // Two frames of 256 KiB that count as 65,568 each, any number of empty ones, and a ping make the bucket empty.
      const big = frame(0x7f, Buffer.alloc(256 * 1024));
      const empty = Buffer.concat(Array.from({ length: 1000 }, () => frame(0x7f)));
      await client.write(Buffer.concat([big, empty, big, frame(Frame.ping, patterned(8)), empty]));
      expect(await client.expectFrame(Frame.pong)).toEqual(patterned(8));
      expect(relay.counter(...WAITED)).toBe(before);
      client.push(frame(Frame.ping, patterned(9)));
      await relay.untilCounter(WAITED, (value) => value === before + 1);
      await client.expectFrame(Frame.health);
      expect(client.unread).toBe(0);
      await setLimit(relay, 0);
      expect(await client.expectFrame(Frame.pong)).toEqual(patterned(8));
    }
  });

  it.each<[string, (client: RawClient) => void]>([
    ['hangs up', (client) => client.destroy()],
    ['resets', (client) => client.reset()],
  ])('forgets a client that %s while it waits, at once', async (_, leave) => {
    for (let shard = 0; shard < shards; shard++) {
      const [sender, receiver] = [await relay.connect({ key: relay.keyOn(shard) }), await relay.connect()];
      await setLimit(relay, 1);
      const before = relay.counter(...WAITED);
      // Few enough to leave room for the end: what the kernel cannot receive, nobody sees.
      sender.push(numberedPackets(receiver, 0, PASS + 2));
      await relay.untilCounter(WAITED, (value) => value === before + 1);
      leave(sender);
      await relay.untilCounter(['gauge_current_connections'], (value) => value === 1);
      await relay.server.consistencyCheck();
      await setLimit(relay, 0);
      receiver.destroy();
      await relay.untilCounter(['gauge_current_connections'], (value) => value === 0);
    }
  });

  it('does not keep the relay from closing a client that waits', async () => {
    const mesh = await relay.connect({ meshKey });
    for (let shard = 0; shard < shards; shard++) {
      const sender = await relay.connect({ key: relay.keyOn(shard) });
      await setLimit(relay, 1);
      const before = relay.counter(...WAITED);
      sender.push(numberedPackets(mesh, 0, TOTAL));
      await relay.untilCounter(WAITED, (value) => value === before + 1);
      await mesh.write(frame(Frame.closePeer, sender.publicKey.bytes));
      await sender.expectClose();
      await expectNumbers(mesh, 0, PASS);
      expect((await mesh.expectPeerGone()).key).toBe(sender.publicKey.hex);
    }
  });

  it('may be set, changed and lifted at any moment while packets flow', async () => {
    const receivers = await relay.onePerShard();
    const senders = await relay.onePerShard();
    const total = 1000;
    for (const [n, sender] of senders.entries()) sender.push(numberedPackets(receivers.at(-1 - n)!, 0, total));
    const changes = (async () => {
      for (let n = 0; n < 30; n++) await setLimit(relay, [1, 0, 100_000, 1_000_000][n % 4] as number, n * 10_000);
      await setLimit(relay, 0);
    })();
    await Promise.all(receivers.map((receiver) => expectNumbers(receiver, 0, total)));
    await changes;
    await relay.untilAllAccountedFor();
  });
});

/** Sets the limit, 0 lifts it; the shards know of it once they have answered the check, which goes the same way behind it. */
async function setLimit(relay: TestRelay, bytesPerSecond: number, burst = BUCKET): Promise<void> {
  relay.server.setRateLimit(bytesPerSecond, burst);
  await relay.server.consistencyCheck();
}

/** Packets of one size that begin with the numbers from `from` to `to`, exclusive. */
function numberedPackets(receiver: RawClient, from: number, to: number): Buffer {
  return Buffer.concat(
    Array.from({ length: to - from }, (_, n) => {
      const packet = patterned(PACKET);
      packet.writeUInt32BE(from + n);
      return sendPacketFrame(receiver.publicKey, packet);
    }),
  );
}

/** The next packets must have these numbers, and be whole. */
async function expectNumbers(receiver: RawClient, from: number, to: number): Promise<void> {
  for (let n = from; n < to; n++) {
    const { packet } = await receiver.expectPacket();
    expect(packet.readUInt32BE()).toBe(n);
    expect(packet.subarray(4).equals(patterned(PACKET).subarray(4))).toBe(true);
  }
}
