/** Frames that cost nothing to send, sent without end: each is bounded, nobody else notices, and the sender is served on. */
import { describe, expect, it } from 'vitest';
import { Frame, forwardPacketFrame, frame, type RawClient, sendPacketFrame } from './support/raw_client.js';
import { patterned, placements, SHARD_COUNTS, sharedRelay, type TestRelay } from './support/relay.js';

const meshKey = '9f'.repeat(32);
const COUNT = 50_000;
const MIB = 1024 * 1024;

/** What a flood may cost a relay that answers none of it: far less than one answer or one note per frame, kept. */
const MEMORY = 48 * MIB;

/** A frame to repeat, and the type of the answers that may come. */
const floods: [string, (self: RawClient, relay: TestRelay) => Buffer, number][] = [
  ['Ping', () => frame(Frame.ping, patterned(8)), Frame.pong],
  ['NotePreferred', () => frame(Frame.notePreferred, Buffer.of(1)), Frame.pong],
  ['an unknown frame', () => frame(0x7f), Frame.pong],
  ['an unknown frame with a body', () => frame(0x7f, patterned(20)), Frame.pong],
  ['frames that only a relay sends', () => frame(Frame.peerPresent, patterned(51)), Frame.pong],
  ['WatchConns', () => frame(Frame.watchConns), Frame.peerPresent],
  ['ClosePeer of a key that is not here', (_, relay) => closePeerFrame(relay), Frame.pong],
];

describe.each(SHARD_COUNTS)('a flood at a relay with %i shard(s)', (shards) => {
  const shared = sharedRelay({ shards, mesh: { key: meshKey } });

  it.each(floods)('of %s harms nobody, and its sender is served on', async (_, make, answers) => {
    const relay = shared();
    const others = await relay.onePerShard();
    for (let shard = 0; shard < shards; shard++) {
      const flooder = await relay.connect({ key: relay.keyOn(shard), meshKey });
      const bytes = repeated(make(flooder, relay), COUNT);
      const sent = flooder.write(bytes);
      for (let n = 0; n < 20; n++) await expectTalk(others);
      await sent;
      await expectServed(flooder, answers);
      await expectTalk(others);
      flooder.destroy();
    }
    await relay.untilCounter(['gauge_current_connections'], (value) => value === shards);
    await relay.untilCounter(['gauge_queue_bytes'], (value) => value === 0);
    await relay.untilCounter(['gauge_held_bytes'], (value) => value === 0);
  });

  it.each(floods)('of %s by one that reads nothing costs bounded memory', async (_, make) => {
    const relay = shared();
    const others = await relay.onePerShard();
    for (let shard = 0; shard < shards; shard++) {
      const flooder = await relay.connect({ key: relay.keyOn(shard), meshKey });
      flooder.freeze();
      const bytes = repeated(make(flooder, relay), COUNT / 5);
      const before = process.memoryUsage.rss();
      for (let n = 0; n < 10; n++) {
        await flooder.write(bytes);
        await expectTalk(others);
      }
      expect(process.memoryUsage.rss() - before).toBeLessThan(MEMORY);
      flooder.destroy();
    }
    await relay.untilCounter(['gauge_current_connections'], (value) => value === shards);
    await relay.untilCounter(['gauge_queue_bytes'], (value) => value === 0);
  });

  it('of NotePreferred, on and off, leaves the gauge as the last one says', async () => {
    const relay = shared();
    for (let shard = 0; shard < shards; shard++) {
      const client = await relay.connect({ key: relay.keyOn(shard) });
      const onOff = Buffer.concat([frame(Frame.notePreferred, Buffer.of(1)), frame(Frame.notePreferred, Buffer.of(0))]);
      await client.write(Buffer.concat([repeated(onOff, COUNT), frame(Frame.notePreferred, Buffer.of(1))]));
      await client.settle();
      await relay.untilCounter(['gauge_current_home_connections'], (value) => value === shard + 1);
    }
  });

  it('of connections that watch and leave leaves nothing behind', async () => {
    const relay = shared();
    const others = await relay.onePerShard();
    for (let n = 0; n < 50; n++) {
      const watchers = await Promise.all([1, 2, 3].map(() => relay.connect({ meshKey })));
      for (const watcher of watchers) watcher.push(frame(Frame.watchConns));
      for (const watcher of watchers) watcher.reset();
    }
    await relay.untilCounter(['gauge_current_connections'], (value) => value === shards);
    await relay.untilCounter(['gauge_watchers'], (value) => value === 0);
    await expectTalk(others);
  });

  it('of packets to oneself comes back to oneself', async () => {
    const relay = shared();
    for (let shard = 0; shard < shards; shard++) {
      const self = await relay.connect({ key: relay.keyOn(shard) });
      for (let n = 0; n < 1000; n++) {
        await self.write(sendPacketFrame(self.publicKey, Buffer.of(n & 0xff)));
        expect(await self.expectPacket()).toEqual({ source: self.publicKey.hex, packet: Buffer.of(n & 0xff) });
      }
      await self.settle();
      self.destroy();
    }
  });

  it.each(placements(shards))(
    'of ForwardPacket to oneself and in one’s own name comes back once, source %s',
    async (placement) => {
      const relay = shared();
      for (let shard = 0; shard < shards; shard++) {
        const mesh = await relay.connect({ key: relay.keyOn(shard), meshKey });
        const { publicKey: remote } = relay.keyNear(mesh.publicKey, placement);
        for (let n = 0; n < 1000; n++) {
          const source = n % 2 === 0 ? remote : mesh.publicKey;
          await mesh.write(forwardPacketFrame(source, mesh.publicKey, Buffer.of(n & 0xff)));
          expect(await mesh.expectPacket()).toEqual({ source: source.hex, packet: Buffer.of(n & 0xff) });
        }
        await mesh.settle();
        mesh.destroy();
      }
    },
  );
});

function repeated(bytes: Buffer, count: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, () => bytes));
}

function closePeerFrame(relay: TestRelay): Buffer {
  return frame(Frame.closePeer, relay.keyOn(relay.shards - 1).publicKey.bytes);
}

/** The client's own ping is answered; before that there may be any number of `answers`. */
async function expectServed(client: RawClient, answers: number): Promise<void> {
  const ping = Buffer.from('my ping!');
  for (;;) {
    // While 32 pongs wait to be taken, further pings are ignored.
    await client.write(frame(Frame.ping, ping));
    for (;;) {
      const { type, body } = await client.nextFrame('an answer');
      if (type === Frame.pong && body.equals(ping)) return;
      expect([answers, Frame.keepAlive]).toContain(type);
      if (client.unread === 0) break;
    }
  }
}

/** Each sends to the next; a packet or a PeerGone of somebody else is no answer. */
async function expectTalk(clients: RawClient[]): Promise<void> {
  for (const [n, from] of clients.entries()) {
    const to = clients[(n + 1) % clients.length]!;
    await from.send(to.publicKey, Buffer.from('still here'));
    expect(await to.expectPacket()).toEqual({ source: from.publicKey.hex, packet: Buffer.from('still here') });
  }
}
