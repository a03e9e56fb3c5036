/** Several connections that share a key: which of them gets the traffic. */
import { describe, expect, it } from 'vitest';
import { discoPacket, Frame, frame, type RawClient } from './support/raw_client.js';
import { placements, SHARD_COUNTS, type TestRelay, withRelay } from './support/relay.js';

type Three = [RawClient, RawClient, RawClient];
type Four = [RawClient, RawClient, RawClient, RawClient];
type Speech = (speaker: RawClient, sender: RawClient, relay: TestRelay) => Promise<unknown>;

/** Ways to speak, each returning when the relay has heard it. */
const speeches: [string, Speech][] = [
  ['Ping', (speaker) => speaker.settle()],
  [
    'SendPacket',
    async (speaker, sender) => {
      await speaker.send(sender.publicKey, Buffer.from('hello'));
      await sender.expectPacket();
    },
  ],
  [
    'an unknown frame',
    async (speaker, _, relay) => {
      const before = relay.counter('unknown_frames');
      await speaker.write(frame(0x7f));
      await relay.untilCounter(['unknown_frames'], (value) => value === before + 1);
    },
  ],
  [
    'NotePreferred',
    async (speaker, _, relay) => {
      await speaker.write(frame(Frame.notePreferred, Buffer.of(1)));
      await relay.untilCounter(['gauge_current_home_connections'], (value) => value === 1);
      await speaker.write(frame(Frame.notePreferred, Buffer.of(0)));
      await relay.untilCounter(['gauge_current_home_connections'], (value) => value === 0);
    },
  ],
];

describe.each(SHARD_COUNTS)('connections of one key at a relay with %i shard(s)', (shards) => {
  describe.each(placements(shards))('sender and they %s', (placement) => {
    /** A sender and `count` connections of another key, in the order in which they connected. */
    async function cast(relay: TestRelay, count: number): Promise<[RawClient, ...RawClient[]]> {
      const sender = await relay.connect({ key: relay.keyOn(0) });
      const key = relay.keyNear(sender.publicKey, placement);
      const set: RawClient[] = [];
      for (let n = 0; n < count; n++) set.push(await relay.connect({ key }));
      return [sender, ...set];
    }

    it('the newest is active at once', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, first, second, third] = (await cast(relay, 3)) as Four;
        await expectActive(sender, third, [first, second]);
      }));

    it.each(speeches)('the last that sent %s is active', (_, speak) =>
      withRelay({ shards }, async (relay) => {
        const [sender, first, second] = (await cast(relay, 2)) as Three;
        for (const speaker of [first, second, first]) {
          await speak(speaker, sender, relay);
          await expectActive(sender, speaker, speaker === first ? [second] : [first]);
        }
      }),
    );

    it('the one that is left is active again', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, first, second] = (await cast(relay, 2)) as Three;
        await second.settle();
        second.destroy();
        await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
        await expectActive(sender, first, []);
      }));

    it('when the active one leaves, the one that spoke before it follows', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, first, second, third] = (await cast(relay, 3)) as Four;
        for (const speaker of [third, first, second]) await speaker.settle();
        second.destroy();
        await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 2);
        await expectActive(sender, first, [third]);
      }));

    it('are counted while there is more than one of them', () =>
      withRelay({ shards }, async (relay) => {
        const [, ...set] = await cast(relay, 3);
        await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 3);
        await relay.untilCounter(['gauge_current_dup_client_keys'], (value) => value === 1);
        await relay.untilCounter(['counter_total_dup_client_conns'], (value) => value === 2);
        await relay.untilCounter(['gauge_clients_local'], (value) => value === 2);
        for (const client of set) client.destroy();
        await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
        await relay.untilCounter(['gauge_current_dup_client_keys'], (value) => value === 0);
        await relay.untilCounter(['gauge_clients_local'], (value) => value === 1);
      }));

    describe('that fight, with fighters disabled', () => {
      const options = { shards, duplicatePolicy: 'disable-fighters' } as const;

      it('are all disabled until one is left', () =>
        withRelay(options, async (relay) => {
          const [sender, first, second] = (await cast(relay, 2)) as Three;
          for (const speaker of [first, second, first]) await speaker.settle();
          await sender.send(first.publicKey, discoPacket());
          await relay.untilDropped('dup_client', 'disco', (value) => value === 1);
          // A key that is here, if disabled, is not "not here".
          await sender.settle();
          second.destroy();
          await relay.untilCounter(['gauge_current_dup_client_conns'], (value) => value === 0);
          await expectActive(sender, first, []);
        }));

      it('do not move the active role by speaking once', () =>
        withRelay(options, async (relay) => {
          const [sender, first, second] = (await cast(relay, 2)) as Three;
          await first.settle();
          await expectActive(sender, second, [first]);
        }));

      it('give way to one that joins them', () =>
        withRelay(options, async (relay) => {
          const [sender, first, second] = (await cast(relay, 2)) as Three;
          for (const speaker of [first, second, first]) await speaker.settle();
          const third = await relay.connect({ key: first.key });
          await expectActive(sender, third, [first, second]);
        }));
    });
  });
});

/** The next packet reaches `active`, and the others have nothing to read by then. */
async function expectActive(sender: RawClient, active: RawClient, others: RawClient[]): Promise<void> {
  await sender.send(active.publicKey, Buffer.from('who is it?'));
  expect(await active.expectPacket()).toEqual({ source: sender.publicKey.hex, packet: Buffer.from('who is it?') });
  for (const other of others) expect(other.unread, 'bytes at a connection that is not active').toBe(0);
}
