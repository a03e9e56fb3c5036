/** What the relay does with each kind of frame, and what it does not put up with. */
import { describe, expect, it } from 'vitest';
import { Frame, frame, type RawClient, sendPacketFrame } from './support/raw_client.js';
import { patterned, SHARD_COUNTS, sharedRelay, type TestRelay, withRelay } from './support/relay.js';

const UNKNOWN_TYPE = 0x7f;
const MIB = 1024 * 1024;

describe.each(SHARD_COUNTS)('frames to a relay with %i shard(s)', (shards) => {
  it.each([0, 1, 1024])('of an unknown type and %i bytes are skipped and counted', (length) =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect();
      const before = relay.counter('unknown_frames');
      await client.write(Buffer.concat([frame(UNKNOWN_TYPE, patterned(length)), frame(UNKNOWN_TYPE)]));
      await client.settle();
      await relay.untilCounter(['unknown_frames'], (value) => value === before + 2);
    }),
  );

  it('of an unknown type are skipped as they stream in, never held: 128 MiB in one frame', () =>
    withRelay({ shards }, async (relay) => {
      const [client, peer] = [await relay.connect(), await relay.connect()];
      const chunk = patterned(MIB / 4);
      const before = process.memoryUsage.rss();
      await client.write(frame(UNKNOWN_TYPE, chunk, 128 * MIB));
      for (let sent = chunk.length; sent < 128 * MIB; sent += chunk.length) await client.write(chunk);
      expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MIB);
      await client.send(peer.publicKey, Buffer.from('behind it'));
      expect((await peer.expectPacket()).packet.toString()).toBe('behind it');
    }));

  it('that only a relay sends count as unknown when a client sends them', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect();
      const before = relay.counter('unknown_frames');
      const types = [Frame.serverKey, Frame.serverInfo, Frame.recvPacket, Frame.keepAlive, Frame.peerGone];
      for (const type of types) await client.write(frame(type, patterned(45)));
      await client.settle();
      await relay.untilCounter(['unknown_frames'], (value) => value === before + types.length);
    }));

  it.each([8, 9, 100, 1000])('Ping of %i bytes gets a Pong with its first 8', (length) =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect();
      const body = patterned(length, 3);
      await client.write(frame(Frame.ping, body));
      expect(await client.expectFrame(Frame.pong)).toEqual(body.subarray(0, 8));
      await relay.untilCounter(['got_ping'], (value) => value === 1);
      await relay.untilCounter(['sent_pong'], (value) => value === 1);
    }),
  );

  it('Ping may come 32 times in one write: each gets its Pong, in order', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect();
      const bodies = Array.from({ length: 32 }, (_, n) => patterned(8, n));
      await client.write(Buffer.concat(bodies.map((body) => frame(Frame.ping, body))));
      for (const body of bodies) expect(await client.expectFrame(Frame.pong)).toEqual(body);
    }));

  it('Ping may come any number of times in one write: the first 32 get their Pongs and nobody is closed', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect();
      const pings = Array.from({ length: 100 }, (_, n) => frame(Frame.ping, patterned(8, n)));
      await client.write(Buffer.concat(pings));
      for (let n = 0; n < 32; n++) expect(await client.expectFrame(Frame.pong)).toEqual(patterned(8, n));
      await relay.untilCounter(['got_ping'], (value) => value === 100);
    }));

  it.each([7, 1001])('Ping of %i bytes counts in got_ping before it closes', (length) =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect();
      await client.write(frame(Frame.ping, patterned(length)));
      await relay.untilCounter(['got_ping'], (value) => value === 1);
    }),
  );

  it('NotePreferred of 1 byte moves the home gauge up and down, once per change', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect();
      const homes = ['gauge_current_home_connections'];
      for (const [byte, gauge] of [
        [1, 1],
        [1, 1],
        [0xff, 1],
        [0, 0],
        [0, 0],
        [1, 1],
      ] as const) {
        await client.write(frame(Frame.notePreferred, Buffer.of(byte)));
        await client.settle();
        await relay.untilCounter(homes, (value) => value === gauge);
      }
      client.destroy();
      await relay.untilCounter(homes, (value) => value === 0);
    }));

  it('KeepAlive comes again and again, also to a client that never says anything', () =>
    withRelay({ shards, timeouts: { keepAliveInterval: 50 } }, async (relay) => {
      for (const client of await relay.onePerShard()) {
        for (let n = 0; n < 3; n++) {
          const { type, body } = await client.nextFrame('KeepAlive');
          expect(type).toBe(Frame.keepAlive);
          expect(body).toHaveLength(0);
        }
      }
    }));

  it('a control frame that comes in two pieces does not disturb the packets behind it', () =>
    withRelay({ shards }, async (relay) => {
      const [sender, reader] = await relay.pair('on one shard');
      const ping = frame(Frame.ping, patterned(8));
      await sender.write(ping.subarray(0, 9));
      await relay.untilCounter(['gauge_held_bytes'], (value) => value > 0);
      const packets = Array.from({ length: 20 }, (_, n) => patterned(100, n));
      await sender.write(
        Buffer.concat([ping.subarray(9), ...packets.map((packet) => sendPacketFrame(reader.publicKey, packet))]),
      );
      for (const packet of packets) expect((await reader.expectPacket()).packet).toEqual(packet);
      expect(await sender.expectFrame(Frame.pong)).toEqual(patterned(8));
    }));

  it('a bad frame behind good ones closes after the good ones were delivered', () =>
    withRelay({ shards }, async (relay) => {
      const witnesses = await relay.onePerShard();
      const bad = await relay.connect();
      const good = witnesses.map((to) => sendPacketFrame(to.publicKey, Buffer.from('last words')));
      bad.push(Buffer.concat([...good, frame(Frame.ping, patterned(7)), ...good]));
      await bad.expectClose();
      for (const witness of witnesses) {
        expect((await witness.expectPacket()).packet.toString()).toBe('last words');
        expect((await witness.expectPeerGone()).key).toBe(bad.publicKey.hex);
      }
      await expectAllTalk(witnesses);
    }));
});

describe.each(SHARD_COUNTS)('a relay with %i shard(s)', (shards) => {
  const meshKey = 'ab'.repeat(32);
  const relay = sharedRelay({ shards, mesh: { key: meshKey } });
  const tooBig = 65_537;
  it.each([
    ['SendPacket of 0 bytes', 'bad_packet_frame', frame(Frame.sendPacket)],
    ['SendPacket shorter than a key', 'bad_packet_frame', frame(Frame.sendPacket, patterned(31))],
    ['SendPacket with 65,537 bytes', 'packet_too_big', frame(Frame.sendPacket, patterned(32 + tooBig))],
    [
      'SendPacket that claims 65,537 bytes and sends none',
      'packet_too_big',
      frame(Frame.sendPacket, Buffer.alloc(0), 32 + tooBig),
    ],
    ['SendPacket that claims 4 GiB', 'packet_too_big', frame(Frame.sendPacket, Buffer.alloc(0), 0xffff_ffff)],
    ['ForwardPacket without the mesh key', 'insufficient_permissions', frame(Frame.forwardPacket, patterned(64))],
    ['WatchConns without the mesh key', 'insufficient_permissions', frame(Frame.watchConns)],
    ['ClosePeer without the mesh key', 'insufficient_permissions', frame(Frame.closePeer, patterned(32))],
    ['Ping of 0 bytes', 'bad_ping', frame(Frame.ping)],
    ['Ping of 7 bytes', 'bad_ping', frame(Frame.ping, patterned(7))],
    ['Ping of 1,001 bytes', 'bad_ping', frame(Frame.ping, patterned(1001))],
    ['Ping that claims 4 GiB', 'bad_ping', frame(Frame.ping, Buffer.alloc(0), 0xffff_ffff)],
    ['NotePreferred of 0 bytes', 'bad_note_preferred', frame(Frame.notePreferred)],
    ['NotePreferred of 2 bytes', 'bad_note_preferred', frame(Frame.notePreferred, patterned(2))],
  ])('closes a connection for %s, and nothing else (%s)', (_, reason, bytes) =>
    expectOnlyItCloses(relay(), {}, bytes, reason),
  );

  it.each([
    ['ForwardPacket shorter than two keys', 'bad_packet_frame', frame(Frame.forwardPacket, patterned(63))],
    ['ForwardPacket with 65,537 bytes', 'packet_too_big', frame(Frame.forwardPacket, Buffer.alloc(0), 64 + tooBig)],
    ['WatchConns with a body', 'bad_watch_conns', frame(Frame.watchConns, patterned(1))],
    ['ClosePeer of 31 bytes', 'bad_close_peer', frame(Frame.closePeer, patterned(31))],
    ['ClosePeer of 33 bytes', 'bad_close_peer', frame(Frame.closePeer, patterned(33))],
  ])('closes a mesh peer for %s, and nothing else (%s)', (_, reason, bytes) =>
    expectOnlyItCloses(relay(), { meshKey }, bytes, reason),
  );
});

/** Clients on every shard send `bytes`; each is closed for `reason`, and the others go on. */
async function expectOnlyItCloses(
  relay: TestRelay,
  options: { meshKey?: string },
  bytes: Buffer,
  reason: string,
): Promise<void> {
  const others = await relay.onePerShard();
  const before = relay.counter('closed', reason);
  for (let shard = 0; shard < relay.shards; shard++) {
    const bad = await relay.connect({ ...options, key: relay.keyOn(shard) });
    bad.push(bytes);
    await bad.expectClose();
  }
  await expectAllTalk(others);
  await relay.untilCounter(['closed', reason], (value) => value === before + relay.shards);
  await relay.untilCounter(['gauge_clients_local'], (value) => value === others.length);
}

async function expectAllTalk(clients: RawClient[]): Promise<void> {
  for (const from of clients) {
    for (const to of clients) {
      await from.send(to.publicKey, Buffer.from('still here'));
      expect((await to.expectPacket()).packet.toString()).toBe('still here');
    }
  }
}
