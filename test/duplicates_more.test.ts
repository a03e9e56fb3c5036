/** Connections of one key under both policies: who gets what when they come, speak, fight and go. */
import { describe, expect, it } from 'vitest';
import { discoPacket, Frame, forwardPacketFrame, frame, type RawClient } from './support/raw_client.js';
import { placements, SHARD_COUNTS, sharedRelay, type TestRelay } from './support/relay.js';
import { Watcher } from './support/watcher.js';

const meshKey = '1d'.repeat(32);
const policies = ['last-writer-active', 'disable-fighters'] as const;

describe.each(SHARD_COUNTS)('connections of one key at a relay with %i shard(s)', (shards) => {
  describe.each(placements(shards))('sender and they %s', (placement) => {
    describe.each(policies)('policy %s', (duplicatePolicy) => {
      const shared = sharedRelay({ shards, mesh: { key: meshKey }, duplicatePolicy });
      const withShared = (body: (relay: TestRelay) => Promise<void>) => body(shared());

      it('the newest is active at once, however many there are', () =>
        withShared(async (relay) => {
          const [sender] = await cast(relay, 0);
          const key = relay.keyNear(sender.publicKey, placement);
          const set: RawClient[] = [];
          for (let n = 0; n < 12; n++) {
            set.push(await relay.connect({ key }));
            await expectActive(sender, set);
          }
        }));

      it('the newest of those left is active when silent ones leave in turn', () =>
        withShared(async (relay) => {
          const [sender, ...set] = await cast(relay, 6);
          while (set.length > 3) {
            set.pop()!.destroy();
            await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === set.length);
            await expectActive(sender, set);
          }
        }));

      it('one that leaves without having been active changes nothing', () =>
        withShared(async (relay) => {
          const [sender, first, second, third] = (await cast(relay, 3)) as Four;
          first.destroy();
          await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 2);
          await expectActive(sender, [second, third]);
          second.destroy();
          await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
          await expectActive(sender, [third]);
        }));

      it('forwarded packets go to the active one as well', () =>
        withShared(async (relay) => {
          const mesh = await relay.connect({ key: relay.keyOn(0), meshKey });
          const key = relay.keyNear(mesh.publicKey, placement);
          const [, second] = [await relay.connect({ key }), await relay.connect({ key })];
          await mesh.write(forwardPacketFrame(mesh.publicKey, key.publicKey, Buffer.from('to the newest')));
          expect((await second.expectPacket()).packet.toString()).toBe('to the newest');
        }));

      it('are heard of one by one by watchers, and their key is gone once', () =>
        withShared(async (relay) => {
          const watcher = await Watcher.join(relay, { meshKey, key: relay.keyOn(0) });
          await watcher.expectPresent(watcher.client);
          const key = relay.keyNear(watcher.client.publicKey, placement);
          const set: RawClient[] = [];
          for (let n = 0; n < 4; n++) {
            set.push(await relay.connect({ key }));
            const { port } = await watcher.expectPresent(set[n]!);
            expect(port).toBe(set[n]!.socket.localPort);
          }
          // Who is active, or disabled, is no change of presence.
          for (const speaker of [...set, ...set]) await speaker.settle();
          for (const leaver of set.slice(0, 3)) leaver.destroy();
          await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
          await watcher.client.settle();
          set[3]!.destroy();
          await watcher.expectGone(set[3]!);
          await watcher.client.settle();
        }));

      it('send all under the one key, active or not', () =>
        withShared(async (relay) => {
          const [receiver, first, second] = (await cast(relay, 2)) as Three;
          for (const from of [first, second, first, second]) {
            await from.send(receiver.publicKey, Buffer.from('it is me'));
            expect((await receiver.expectPacket()).source).toBe(first.publicKey.hex);
          }
        }));

      it('are counted rightly through comings and goings', () =>
        withShared(async (relay) => {
          const keys = [0, 1, 2].map((n) => relay.keyOn(n % shards));
          const sets: RawClient[][] = keys.map(() => []);
          const random = generator(7);
          let joins = relay.counter('counter_total_dup_client_conns');
          for (let step = 0; step < 60; step++) {
            const n = random(keys.length);
            const set = sets[n]!;
            if (random(3) > 0 || set.length === 0) {
              if (set.length > 0) joins++;
              set.push(await relay.connect({ key: keys[n]! }));
            } else {
              set.splice(random(set.length), 1)[0]!.destroy();
            }
            const connections = sets.flat().length;
            await relay.untilCounter(['gauge_current_connections'], (value) => value === connections);
            const several = sets.filter(({ length }) => length > 1);
            await relay.untilCounter(['gauge_clients_local'], (value) => value === sets.filter((s) => s.length).length);
            await relay.untilCounter(['gauge_current_dup_client_keys'], (value) => value === several.length);
            await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === several.flat().length);
            await relay.untilCounter(['counter_total_dup_client_conns'], (value) => value === joins);
          }
        }));
    });

    describe('policy last-writer-active', () => {
      const shared = sharedRelay({ shards, mesh: { key: meshKey } });
      const withShared = (body: (relay: TestRelay) => Promise<void>) => body(shared());

      it.each<[string, (speaker: RawClient, relay: TestRelay) => Promise<unknown>]>([
        [
          'WatchConns',
          async (speaker) => {
            const watcher = new Watcher(speaker);
            await watcher.ask();
            await watcher.flood(2);
          },
        ],
        [
          'ForwardPacket',
          async (speaker, relay) => {
            const before = relay.counter('packets_forwarded_in');
            await speaker.write(frame(Frame.forwardPacket, Buffer.alloc(64, 7)));
            await relay.untilCounter(['packets_forwarded_in'], (value) => value === before + 1);
          },
        ],
        [
          'ClosePeer',
          async (speaker, relay) => {
            const victim = await relay.connect();
            await speaker.write(frame(Frame.closePeer, victim.publicKey.bytes));
            await victim.expectClose();
          },
        ],
        [
          'an unknown frame of 100,000 bytes',
          async (speaker, relay) => {
            const before = relay.counter('unknown_frames');
            await speaker.write(frame(0x7f, Buffer.alloc(100_000)));
            await relay.untilCounter(['unknown_frames'], (value) => value === before + 1);
          },
        ],
      ])('the last that sent %s is active', (_, speak) =>
        withShared(async (relay) => {
          const sender = await relay.connect({ key: relay.keyOn(0) });
          const key = relay.keyNear(sender.publicKey, placement);
          const [first, second] = [await relay.connect({ key, meshKey }), await relay.connect({ key, meshKey })];
          await first.settle();
          await expectActive(sender, [second, first]);
          await speak(second, relay);
          await expectActive(sender, [first, second]);
        }),
      );

      it('speech moves the role as often as it changes hands', () =>
        withShared(async (relay) => {
          const [sender, ...set] = await cast(relay, 3);
          const random = generator(3);
          for (let round = 0; round < 30; round++) {
            const speaker = set[random(set.length)]!;
            await speaker.settle();
            await expectActive(sender, [...set.filter((client) => client !== speaker), speaker]);
          }
        }));
    });

    describe('policy disable-fighters', () => {
      const shared = sharedRelay({ shards, duplicatePolicy: 'disable-fighters' });
      const withShared = (body: (relay: TestRelay) => Promise<void>) => body(shared());

      it('one that alone speaks disables nobody, however much it says', () =>
        withShared(async (relay) => {
          const [sender, , second] = (await cast(relay, 2)) as Three;
          for (let n = 0; n < 20; n++) await second.settle();
          await sender.send(second.publicKey, Buffer.from('still active'));
          expect((await second.expectPacket()).packet.toString()).toBe('still active');
        }));

      it('packets for those disabled are dropped by kind, and senders are not told that they are not here', () =>
        withShared(async (relay) => {
          const [sender, first, second] = (await cast(relay, 2)) as Three;
          for (const speaker of [first, second, first]) await speaker.settle();
          const before = { disco: relay.dropped('dup_client', 'disco'), other: relay.dropped('dup_client', 'other') };
          for (let n = 0; n < 5; n++) await sender.send(first.publicKey, discoPacket());
          for (let n = 0; n < 7; n++) await sender.send(first.publicKey, Buffer.from('bulk'));
          await relay.untilDropped('dup_client', 'disco', (value) => value === before.disco + 5);
          await relay.untilDropped('dup_client', 'other', (value) => value === before.other + 7);
          await sender.settle();
          await relay.untilAllAccountedFor();
          for (const client of [first, second]) await client.settle();
        }));

      it('those disabled still may send', () =>
        withShared(async (relay) => {
          const [receiver, first, second] = (await cast(relay, 2)) as Three;
          for (const speaker of [first, second, first]) await speaker.settle();
          for (const from of [first, second]) {
            await from.send(receiver.publicKey, Buffer.from('I can talk'));
            expect((await receiver.expectPacket()).source).toBe(first.publicKey.hex);
          }
        }));

      it('all stay disabled until one is left; then that one is active, whichever it is', () =>
        withShared(async (relay) => {
          for (const survivor of [0, 1, 2]) {
            const [sender, ...set] = await cast(relay, 3);
            for (const speaker of [set[0]!, set[1]!, set[0]!]) await speaker.settle();
            const leavers = set.filter((_, n) => n !== survivor);
            leavers[0]!.destroy();
            await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 2);
            const before = relay.dropped('dup_client', 'other');
            await sender.send(set[0]!.publicKey, Buffer.from('lost'));
            await relay.untilDropped('dup_client', 'other', (value) => value === before + 1);
            leavers[1]!.destroy();
            await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
            await expectActive(sender, [set[survivor]!]);
          }
        }));

      it('one that was disabled and is alone again may be joined and be active once more', () =>
        withShared(async (relay) => {
          const [sender, first, second] = (await cast(relay, 2)) as Three;
          for (const speaker of [first, second, first]) await speaker.settle();
          second.destroy();
          await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
          const third = await relay.connect({ key: first.key });
          await expectActive(sender, [first, third]);
          third.destroy();
          await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
          await expectActive(sender, [first]);
        }));
    });

    /** A sender and `count` connections of another key, in the order in which they connected. */
    async function cast(relay: TestRelay, count: number): Promise<[RawClient, ...RawClient[]]> {
      const sender = await relay.connect({ key: relay.keyOn(0) });
      const key = relay.keyNear(sender.publicKey, placement);
      const set: RawClient[] = [];
      for (let n = 0; n < count; n++) set.push(await relay.connect({ key }));
      return [sender, ...set];
    }
  });
});

type Three = [RawClient, RawClient, RawClient];
type Four = [RawClient, RawClient, RawClient, RawClient];

/** The next packet reaches the last of `set`, and the others have nothing to read by then. */
async function expectActive(sender: RawClient, set: RawClient[]): Promise<void> {
  const active = set.at(-1)!;
  await sender.send(active.publicKey, Buffer.from('who is it?'));
  expect(await active.expectPacket()).toEqual({ source: sender.publicKey.hex, packet: Buffer.from('who is it?') });
  for (const other of set.slice(0, -1)) expect(other.unread, 'bytes at a connection that is not active').toBe(0);
}

/** A small deterministic generator: numbers below `limit`. */
function generator(seed: number): (limit: number) => number {
  let state = seed * 2_654_435_761 + 1;
  return (limit) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}
