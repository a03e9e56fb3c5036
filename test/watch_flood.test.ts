/** Thousands of keys told to several watchers: nobody is left out, packets flow meanwhile, and a watcher that does not read harms itself only. */
import { describe, expect, it } from 'vitest';
import { Frame, frame, RawClient, sendPacketFrame } from './support/raw_client.js';
import { patterned, placements, SHARD_COUNTS, type TestRelay, withRelay } from './support/relay.js';
import { Watcher } from './support/watcher.js';

const meshKey = '2b'.repeat(32);
const CLIENTS = 2000;
const WATCHERS = 3;

/** More than two socket buffers of a loopback connection hold; see relay_slow_reader.test.ts. */
const FLOOD_BYTES = 24 * 1024 * 1024;
const FLOOD_PACKET = 65_536;

describe.each(SHARD_COUNTS)('2,000 clients at a relay with %i shard(s)', (shards) => {
  it('are told once each to 3 watchers, then all that they are gone, while packets flow', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const crowd = await connectMany(relay, CLIENTS);
      const pairs: [RawClient, RawClient][] = [];
      for (const placement of placements(shards)) pairs.push(await relay.pair(placement));
      const watchers: Watcher[] = [];
      for (let n = 0; n < WATCHERS; n++) {
        watchers.push(new Watcher(await relay.connect({ meshKey, key: relay.keyOn(n % shards) })));
      }
      const here = [...crowd, ...pairs.flat(), ...watchers.map(({ client }) => client)].map(
        ({ publicKey }) => publicKey.hex,
      );
      const flowing = new Flow(pairs);
      await Promise.all(watchers.map((watcher) => watcher.ask()));
      for (const told of await Promise.all(watchers.map((watcher) => watcher.flood(here.length)))) {
        expect([...told.keys()].sort()).toEqual([...here].sort());
      }
      for (const client of crowd) client.destroy();
      const gone = watchers.map(async (watcher) => {
        const missing = new Set(crowd.map(({ publicKey }) => publicKey.hex));
        while (missing.size > 0) {
          const change = await watcher.next();
          if (change.kind !== 'gone' || !missing.delete(change.key))
            throw new Error(`unexpected ${JSON.stringify(change)}`);
        }
      });
      await Promise.all(gone);
      expect(await flowing.stop()).toBeGreaterThan(0);
      for (const watcher of watchers) await watcher.client.settle();
    }));

  it('reach a watcher that reads in its own time, and one that asks again and again', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const crowd = await connectMany(relay, CLIENTS);
      const here = crowd.map(({ publicKey }) => publicKey.hex);
      for (let shard = 0; shard < shards; shard++) {
        const client = await relay.connect({ meshKey, key: relay.keyOn(shard) });
        client.freeze();
        await client.write(Buffer.concat(Array.from({ length: 200 }, () => frame(Frame.watchConns))));
        // The relay serves others while this one does not read.
        for (const other of crowd.slice(0, 20)) await other.settle();
        client.thaw();
        const present = new Set<string>();
        await new Watcher(client).replay(present, () => present.size === here.length + 1);
        expect([...present].sort()).toEqual([...here, client.publicKey.hex].sort());
        client.destroy();
        await relay.untilCounter(['gauge_current_connections'], (value) => value === crowd.length);
      }
    }));
});

describe('a watcher that never reads harms nobody', () => {
  it.each(SHARD_COUNTS)('and is closed when the kernel gives up on it, at a relay with %i shard(s)', (shards) =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const { sender } = await withFrozenWatcher(relay, 500);
      await relay.untilCounter(['gauge_watchers'], (value) => value === 0, 60_000);
      await sender.settle();
    }),
  );

  it('and is closed when its write timeout of 30 s is over, if the kernel does not', { timeout: 90_000 }, async () => {
    const relays = SHARD_COUNTS.map((shards) =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const { sender, watcher } = await withFrozenWatcher(relay, 120_000);
        await relay.untilCounter(['sclient_write_timeouts'], (value) => value === 1, 60_000);
        await relay.untilCounter(['gauge_watchers'], (value) => value === 0);
        await sender.settle();
        watcher.client.thaw();
        await watcher.client.expectClose();
      }),
    );
    await Promise.all(relays);
  });
});

/** A watcher whose output piles up, on a connection with a TCP_USER_TIMEOUT of `milliseconds`; packets and changes go on meanwhile. */
async function withFrozenWatcher(
  relay: TestRelay,
  milliseconds: number,
): Promise<{ watcher: Watcher; sender: RawClient }> {
  const listener = await relay.server.listen({ host: '127.0.0.1', port: 0, tcpUserTimeout: milliseconds });
  const client = relay.track(await RawClient.dial(listener.port, relay.keyOn(0)));
  const watcher = new Watcher(await client.open({ meshKey }));
  await watcher.ask();
  await watcher.expectPresent(client);
  client.freeze();
  const sender = await relay.connect({ key: relay.keyOn(relay.shards - 1) });
  for (let sent = 0; sent < FLOOD_BYTES; sent += FLOOD_PACKET)
    await sender.send(client.publicKey, patterned(FLOOD_PACKET));
  await sender.settle();
  await relay.untilDropped('queue_head', 'other', (value) => value > 0);
  for (let n = 0; n < 100; n++) {
    const visitor = await relay.connect({ key: relay.keyOn(n % relay.shards) });
    await sender.send(visitor.publicKey, Buffer.of(n));
    expect((await visitor.expectPacket()).packet).toEqual(Buffer.of(n));
    visitor.destroy();
  }
  return { watcher, sender };
}

/** Packets that go to and fro, one at a time, in every pair until told to stop. */
class Flow {
  readonly #running: Promise<number>[];
  #stopped = false;

  constructor(pairs: [RawClient, RawClient][]) {
    this.#running = pairs.map((pair) => this.#run(pair));
  }

  /** Number of packets that arrived; rejects when one did not, or not in order. */
  async stop(): Promise<number> {
    this.#stopped = true;
    return (await Promise.all(this.#running)).reduce((sum, packets) => sum + packets);
  }

  async #run([a, b]: [RawClient, RawClient]): Promise<number> {
    let packets = 0;
    for (; !this.#stopped; packets += 2) {
      const numbered = Buffer.alloc(1400);
      numbered.writeUInt32BE(packets);
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        await from.write(sendPacketFrame(to.publicKey, numbered));
        expect((await to.expectPacket()).packet).toEqual(numbered);
      }
    }
    return packets;
  }
}

/** So many clients with keys on all shards, connected a hundred at a time. */
async function connectMany(relay: TestRelay, count: number): Promise<RawClient[]> {
  const clients: RawClient[] = [];
  while (clients.length < count) {
    const batch = Array.from({ length: Math.min(100, count - clients.length) }, () =>
      relay.connect({ fastStart: true }),
    );
    clients.push(...(await Promise.all(batch)));
  }
  return clients;
}
