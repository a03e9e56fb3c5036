/** Much at once: what holds when rings are full, queues overflow and clients come and go meanwhile. */
import { describe, expect, it } from 'vitest';
import { discoPacket, Frame, KEY_LENGTH, type RawClient, sendPacketFrame } from './support/raw_client.js';
import { SHARD_COUNTS, withRelay } from './support/relay.js';

/** Below the least that a ring may have, so that every ring has just that: four of the largest packets. */
const SMALL_RINGS = 1;

describe.each(SHARD_COUNTS)('a storm at a relay with %i shard(s) and small rings', (shards) => {
  it('any-to-any loses only what it counts, and mixes up nothing', () =>
    withRelay({ shards, queues: { ringBytes: SMALL_RINGS } }, async (relay) => {
      const random = generator(shards);
      const clients = await Promise.all(Array.from({ length: 16 }, () => relay.connect()));
      const readers = clients.map((client) => new OrderedReader(client));
      let sent = 0;
      await Promise.all(
        clients.map(async (from, self) => {
          const next = clients.map(() => 0);
          for (let write = 0; write < 60; write++) {
            const frames = Array.from({ length: 1 + random(20) }, () => {
              const to = random(clients.length);
              next[to] = (next[to] as number) + 1;
              const packet = numberedPacket(
                next[to] as number,
                random(10) === 0 ? random(65_000) : random(1400),
                random,
              );
              return sendPacketFrame((clients[to] as RawClient).publicKey, packet);
            });
            sent += frames.length;
            const bytes = Buffer.concat(frames);
            const cut = random(bytes.length);
            await from.write(bytes.subarray(0, cut));
            if (write % 16 === self) await relay.server.consistencyCheck();
            await from.write(bytes.subarray(cut));
          }
        }),
      );
      await relay.untilCounter(['packets_received'], (value) => value === sent);
      await relay.untilAllAccountedFor();
      await expect
        .poll(() => readers.reduce((sum, reader) => sum + reader.received, 0), { timeout: 10_000 })
        .toBe(relay.counter('packets_sent'));
      for (const reader of readers) expect(reader.failure).toBeUndefined();
    }));

  it('everybody to one reader delivers what it does not count as dropped', () =>
    withRelay({ shards, queues: { ringBytes: SMALL_RINGS } }, async (relay) => {
      const reader = await relay.connect({ key: relay.keyOn(0) });
      const ordered = new OrderedReader(reader);
      const senders = (await Promise.all([relay.onePerShard(), relay.onePerShard(), relay.onePerShard()])).flat();
      await Promise.all(
        senders.map(async (sender) => {
          for (let n = 1; n <= 300; n++) {
            await sender.send(
              reader.publicKey,
              numberedPacket(n, 20_000, () => 1),
            );
          }
        }),
      );
      await relay.untilCounter(['packets_received'], (value) => value === senders.length * 300);
      await relay.untilAllAccountedFor();
      await expect.poll(() => ordered.received, { timeout: 10_000 }).toBe(relay.counter('packets_sent'));
      expect(ordered.failure).toBeUndefined();
    }));

  it('clients that come and go in every way leave nothing behind', () =>
    withRelay({ shards, queues: { ringBytes: SMALL_RINGS } }, async (relay) => {
      const random = generator(100 + shards);
      const keys = Array.from({ length: 12 }, (_, n) => relay.keyOn(n % shards));
      const life = async () => {
        for (let visit = 0; visit < 12; visit++) {
          const client = await relay.connect({ key: keys[random(keys.length)]!, fastStart: random(2) === 0 });
          for (let n = 0; n < random(20); n++) {
            const to = keys[random(keys.length)]!.publicKey;
            client.push(sendPacketFrame(to, random(2) ? discoPacket() : Buffer.alloc(random(20_000))));
          }
          if (random(3) === 0) client.freeze();
          leave(client, random(3));
        }
      };
      const checks = async () => {
        for (let n = 0; n < 20; n++) await relay.server.consistencyCheck();
      };
      await Promise.all([...Array.from({ length: 12 }, life), checks()]);
      for (const gauge of ['gauge_clients_local', 'gauge_current_connections', 'gauge_current_dup_client_conns']) {
        await relay.untilCounter([gauge], (value) => value === 0);
      }
      await relay.untilAllAccountedFor();
    }));
});

/** Reads all the time; per source and kind, numbers must rise and bytes must be what the sender made. */
class OrderedReader {
  received = 0;
  failure: string | undefined;
  #last = new Map<string, number>();

  constructor(client: RawClient) {
    void this.#read(client);
  }

  async #read(client: RawClient): Promise<void> {
    for (;;) {
      const next = await client.nextFrame('a packet', Number.POSITIVE_INFINITY).catch(() => undefined);
      if (!next) return;
      if (next.type !== Frame.recvPacket) continue;
      this.received++;
      this.#check(next.body.toString('hex', 0, KEY_LENGTH), next.body.subarray(KEY_LENGTH));
    }
  }

  #check(source: string, packet: Buffer): void {
    const disco = packet.length >= discoPacket().length && packet.subarray(0, 6).equals(discoPacket().subarray(0, 6));
    const body = disco ? packet.subarray(discoPacket().length) : packet;
    const [stream, number] = [`${source} ${disco}`, body.readUInt32BE()];
    const last = this.#last.get(stream) ?? 0;
    if (number <= last) this.failure ??= `${number} after ${last} in ${stream}`;
    if (!body.subarray(4).every((byte) => byte === (number & 0xff)))
      this.failure ??= `${number} of ${stream} is damaged`;
    this.#last.set(stream, number);
  }
}

/** A packet that says its number and shows damage; one in four looks like disco. */
function numberedPacket(number: number, length: number, random: (below: number) => number): Buffer {
  const body = Buffer.alloc(4 + length, number & 0xff);
  body.writeUInt32BE(number);
  return random(4) === 0 ? Buffer.concat([discoPacket(), body]) : body;
}

function leave(client: RawClient, way: number): void {
  if (way === 0) client.reset();
  else if (way === 1) client.destroy();
  else client.stream.end(() => client.destroy());
}

/** Pseudo-random integers from 0 to below a bound. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return below === 0 ? 0 : Math.floor((state / 2 ** 32) * below);
  };
}
