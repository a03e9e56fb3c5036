/** Watchers: who is here when they ask, then who comes and who goes. */
import { describe, expect, it } from 'vitest';
import { Frame, frame, type RawClient } from './support/raw_client.js';
import { placements, SHARD_COUNTS, sharedRelay, type TestRelay, withRelay } from './support/relay.js';
import { type Present, Watcher } from './support/watcher.js';

const meshKey = '6b'.repeat(32);

describe.each(SHARD_COUNTS)('a watcher at a relay with %i shard(s)', (shards) => {
  const options = { shards, mesh: { key: meshKey } };
  const shared = sharedRelay(options);
  const withShared = (body: (relay: TestRelay) => Promise<void>) => body(shared());

  /** A watcher on any shard that heard of itself; nobody else is there. */
  async function alone(relay: TestRelay, shard = 0): Promise<Watcher> {
    const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(shard) });
    await watcher.expectPresent(watcher.client);
    return watcher;
  }

  it('hears once of every key that is connected, its own included', () =>
    withShared(async (relay) => {
      const others = [...(await relay.onePerShard()), ...(await relay.onePerShard())];
      for (let shard = 0; shard < shards; shard++) {
        const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(shard) });
        others.push(watcher.client);
        const told = await watcher.flood(others.length);
        expect([...told.keys()].sort()).toEqual(others.map((client) => client.publicKey.hex).sort());
        await watcher.client.settle();
        // The watchers before it hear of it too.
        others.splice(others.indexOf(watcher.client), 1);
        watcher.client.destroy();
        await relay.untilCounter(['gauge_clients_local'], (value) => value === others.length);
      }
    }));

  it('takes what it hears first as one batch, and that as one frame, as derper counts', () =>
    withRelay(options, async (relay) => {
      const others = [...(await relay.onePerShard()), ...(await relay.onePerShard())];
      const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(shards - 1) });
      await watcher.flood(others.length + 1);
      const batches = (name: string) => relay.counter('counter_mesh_update_batch_size', name);
      await relay.untilCounter(['counter_mesh_update_batch_size', 'sum'], (sum) => sum === others.length + 1);
      expect(batches('count')).toBe(1);
      await relay.untilCounter(['counter_buffered_write_frames', 'count'], (flushes) => flushes > 0);
      const frames = (name: string) => relay.counter('counter_buffered_write_frames', name);
      expect({ flushes: frames('count'), frames: frames('sum') }).toEqual({ flushes: 1, frames: 1 });
      for (const other of others) other.destroy();
      for (const _ of others) expect(await watcher.next()).toMatchObject({ kind: 'gone' });
    }));

  it('is told nothing before it asks', () =>
    withShared(async (relay) => {
      const mesh = await relay.connect({ meshKey });
      const others = await relay.onePerShard();
      await mesh.settle();
      const watcher = new Watcher(mesh);
      await watcher.ask();
      await watcher.flood(others.length + 1);
    }));

  it('hears of every new connection at once, from every shard, and once of each key that is gone', () =>
    withShared(async (relay) => {
      const watcher = await alone(relay, shards - 1);
      for (let shard = 0; shard < shards; shard++) {
        const client = await relay.connect({ key: relay.keyOn(shard) });
        await watcher.expectPresent(client);
        client.destroy();
        await watcher.expectGone(client);
      }
      await watcher.client.settle();
    }));

  it('hears of a key that comes and goes in the order of events', () =>
    withShared(async (relay) => {
      const watcher = await alone(relay);
      const key = relay.keyOn(shards - 1);
      for (let round = 0; round < 20; round++) {
        const client = await relay.connect({ key });
        client.destroy();
        await relay.untilCounter(['gauge_clients_local'], (value) => value === 1);
      }
      const told: string[] = [];
      for (let n = 0; n < 40; n++) told.push((await watcher.next()).kind);
      expect(told).toEqual(Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? 'present' : 'gone')));
      await watcher.client.settle();
    }));

  it('hears of every connection of a key, and that it is gone when the last one is', () =>
    withShared(async (relay) => {
      const watcher = await alone(relay);
      for (let shard = 0; shard < shards; shard++) {
        const first = await relay.connect({ key: relay.keyOn(shard) });
        const one = await watcher.expectPresent(first);
        const second = await relay.connect({ key: first.key });
        const two = await watcher.expectPresent(second);
        expect([one.port, two.port]).toEqual([first.socket.localPort, second.socket.localPort]);
        second.destroy();
        await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
        await watcher.client.settle();
        first.destroy();
        await watcher.expectGone(first);
      }
      await watcher.client.settle();
    }));

  it('hears once of a key that is connected twice when it asks: of the active connection', () =>
    withShared(async (relay) => {
      const key = relay.keyOn(shards - 1);
      const [first, second] = [await relay.connect({ key }), await relay.connect({ key })];
      for (const active of [second, first]) {
        await active.settle();
        const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(0) });
        const told = await watcher.flood(2);
        expect(told.get(key.publicKey.hex)?.port).toBe(active.socket.localPort);
        await watcher.client.settle();
        watcher.client.destroy();
        await relay.untilCounter(['gauge_clients_local'], (value) => value === 1);
      }
    }));

  it('that is connected twice watches with each connection that asked', () =>
    withShared(async (relay) => {
      const first = await alone(relay);
      const second = new Watcher(await relay.connect({ key: first.client.key, meshKey }));
      await first.expectPresent(second.client);
      const [client] = (await relay.onePerShard()) as [RawClient];
      for (let n = 0; n < shards; n++) await first.next();
      await second.client.settle();
      await second.ask();
      await second.flood(shards + 1);
      client.destroy();
      await Promise.all([first.expectGone(client), second.expectGone(client)]);
    }));

  it('is not alone: all watchers hear the same, on whatever shard', () =>
    withShared(async (relay) => {
      const watchers: Watcher[] = [];
      for (let shard = 0; shard < shards; shard++) {
        for (let n = 0; n < 3; n++) {
          const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(shard) });
          await watcher.flood(watchers.length + 1);
          for (const earlier of watchers) await earlier.expectPresent(watcher.client);
          watchers.push(watcher);
        }
      }
      for (let shard = 0; shard < shards; shard++) {
        const client = await relay.connect({ key: relay.keyOn(shard) });
        for (const watcher of watchers) await watcher.expectPresent(client);
        client.destroy();
        for (const watcher of watchers) await watcher.expectGone(client);
      }
      while (watchers.length > 1) {
        const leaver = watchers.pop() as Watcher;
        leaver.client.destroy();
        for (const watcher of watchers) await watcher.expectGone(leaver.client);
      }
    }));

  it('that joins while clients come and go ends up knowing who is here', () =>
    withShared(async (relay) => {
      const keys = Array.from({ length: 24 }, (_, n) => relay.keyOn(n % shards));
      const churn = keys.map(async (key, n) => {
        for (let visit = 0; visit < 10; visit++) {
          const client = await relay.connect({ key });
          if (visit === 9 && n % 2 === 0) return;
          client.destroy();
        }
      });
      const watchers: [Watcher, Set<string>][] = [];
      for (let n = 0; n < 6; n++) {
        watchers.push([await Watcher.join(relay, { meshKey, key: relay.keyOn(n % shards) }), new Set()]);
      }
      await Promise.all(churn);
      const here = keys.filter((_, n) => n % 2 === 0).map((key) => key.publicKey.hex);
      here.push(...watchers.map(([watcher]) => watcher.key));
      await relay.untilCounter(['gauge_clients_local'], (value) => value === here.length);
      for (const [watcher, present] of watchers) await watcher.replay(present, () => sameKeys(present, here));
      // What each shard tells comes in order: nothing of before is behind the marker.
      const markers = (await relay.onePerShard()).map((client) => client.publicKey.hex);
      for (const [watcher, present] of watchers) {
        const missing = new Set(markers);
        await watcher.replay(present, ({ key }) => missing.delete(key) && missing.size === 0);
        expect([...present].sort()).toEqual([...here, ...markers].sort());
      }
    }));

  it('that asks again is told again, or nothing, and misses no change', () =>
    withShared(async (relay) => {
      const [client] = (await relay.onePerShard()) as [RawClient];
      const watcher = await Watcher.join(relay, { meshKey });
      await watcher.flood(shards + 1);
      await watcher.client.write(Buffer.concat(Array.from({ length: 5 }, () => frame(Frame.watchConns))));
      client.destroy();
      await relay.untilCounter(['gauge_clients_local'], (value) => value === shards);
      const told = new Set<string>();
      await watcher.replay(told, (change) => change.kind === 'gone');
      expect(told.has(client.publicKey.hex)).toBe(false);
    }));

  it('gets packets and pongs like any other client', () =>
    withShared(async (relay) => {
      const watcher = await alone(relay);
      for (const placement of placements(shards)) {
        const client = await relay.connect({ key: relay.keyNear(watcher.client.publicKey, placement) });
        await watcher.expectPresent(client);
        await client.send(watcher.client.publicKey, Buffer.from('to the watcher'));
        expect((await watcher.client.expectPacket()).packet.toString()).toBe('to the watcher');
        await watcher.client.send(client.publicKey, Buffer.from('from the watcher'));
        expect((await client.expectPacket()).packet.toString()).toBe('from the watcher');
        await watcher.client.settle();
      }
    }));

  it('with the relay’s own key is told nothing: a relay that dialled itself', () =>
    withShared(async (relay) => {
      const self = await Watcher.join(relay, { meshKey, key: relay.server.privateKey });
      await relay.onePerShard();
      await self.client.settle();
      await relay.server.consistencyCheck();
      await self.client.settle();
    }));

  it('that leaves is forgotten, whether it asked once or twice', () =>
    withShared(async (relay) => {
      for (let shard = 0; shard < shards; shard++) {
        const watcher = await alone(relay, shard);
        await watcher.ask();
        await relay.untilCounter(['gauge_watchers'], (value) => value === 1);
        watcher.client.destroy();
        await relay.untilCounter(['gauge_watchers'], (value) => value === 0);
      }
      const others = await relay.onePerShard();
      for (const other of others) await other.settle();
    }));

  it('hears of sets that are disabled only when somebody joins them', () =>
    withRelay({ ...options, duplicatePolicy: 'disable-fighters' }, async (relay) => {
      const [bystander] = (await relay.onePerShard()) as [RawClient];
      const key = relay.keyOn(shards - 1);
      const [first, second] = [await relay.connect({ key }), await relay.connect({ key })];
      for (const speaker of [first, second, first]) await speaker.settle();
      const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(0) });
      const told: Map<string, Present> = await watcher.flood(shards + 1);
      expect([told.has(key.publicKey.hex), told.has(bystander.publicKey.hex)]).toEqual([false, true]);
      await watcher.client.settle();
      const third = await relay.connect({ key });
      await watcher.expectPresent(third);
      for (const leaver of [first, second, third]) leaver.destroy();
      await watcher.expectGone(first);
      await watcher.client.settle();
    }));
});

function sameKeys(present: ReadonlySet<string>, keys: readonly string[]): boolean {
  return present.size === keys.length && keys.every((key) => present.has(key));
}
