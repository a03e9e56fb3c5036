/** Packets that come from, or go to, other relays of the region. */
import { type PacketForwarder, PrivateKey, type PublicKey } from 'derplane';
import { describe, expect, it } from 'vitest';
import {
  discoPacket,
  Frame,
  forwardPacketFrame,
  frame,
  type RawClient,
  sendPacketFrame,
} from './support/raw_client.js';
import { patterned, placements, SHARD_COUNTS, type TestRelay, withRelay } from './support/relay.js';

const meshKey = '5a'.repeat(32);
const NOT_HERE = 1;

describe.each(SHARD_COUNTS)('forwarding at a relay with %i shard(s)', (shards) => {
  describe.each(placements(shards))('ForwardPacket, mesh peer and destination %s', (placement) => {
    async function cast(relay: TestRelay): Promise<[RawClient, RawClient]> {
      const mesh = await relay.connect({ key: relay.keyOn(0), meshKey });
      return [mesh, await relay.connect({ key: relay.keyNear(mesh.publicKey, placement) })];
    }

    it('is delivered under the key of its source', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, local] = await cast(relay);
        const remote = PrivateKey.generate().publicKey;
        for (const size of [0, 1, 1400, 65_535, 65_536]) {
          await mesh.write(forwardPacketFrame(remote, local.publicKey, patterned(size)));
          const got = await local.expectPacket();
          expect(got.source).toBe(remote.hex);
          expect(got.packet.equals(patterned(size))).toBe(true);
        }
        await relay.untilCounter(['packets_forwarded_in'], (value) => value === 5);
      }));

    it('arrives whole when split at any byte', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, local] = await cast(relay);
        const bytes = forwardPacketFrame(PrivateKey.generate().publicKey, local.publicKey, patterned(9));
        for (let cut = 1; cut < bytes.length; cut++) {
          await mesh.write(bytes.subarray(0, cut));
          await local.settle();
          await mesh.write(bytes.subarray(cut));
          expect((await local.expectPacket()).packet).toEqual(patterned(9));
        }
      }));

    it('to a key that is not here is answered for disco, 3 times in a row', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, local] = await cast(relay);
        const unknown = relay.keyNear(mesh.publicKey, placement).publicKey;
        const disco = forwardPacketFrame(PrivateKey.generate().publicKey, unknown, discoPacket());
        await mesh.write(Buffer.concat([disco, disco, disco, disco, disco, disco]));
        for (let n = 0; n < 3; n++) {
          expect(await mesh.expectPeerGone()).toEqual({ key: unknown.hex, reason: NOT_HERE });
        }
        await relay.untilDropped('unknown_dest_on_fwd', 'disco', (value) => value === 6);
        await mesh.write(forwardPacketFrame(PrivateKey.generate().publicKey, unknown, Buffer.from('plain')));
        await relay.untilDropped('unknown_dest_on_fwd', 'other', (value) => value === 1);
        await mesh.send(local.publicKey, Buffer.from('still open'));
        expect((await local.expectPacket()).packet.toString()).toBe('still open');
      }));

    it('is never forwarded a second time', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh] = await cast(relay);
        const remote = relay.keyNear(mesh.publicKey, placement).publicKey;
        const forwarder = new RecordingForwarder();
        await register(relay, remote, forwarder);
        await mesh.write(forwardPacketFrame(PrivateKey.generate().publicKey, remote, Buffer.from('no loops')));
        await relay.untilDropped('unknown_dest_on_fwd', 'other', (value) => value === 1);
        await mesh.send(remote, Buffer.from('but this'));
        expect((await forwarder.next()).packet.toString()).toBe('but this');
        expect(forwarder.calls).toBe(1);
      }));

    it('from an all-zero source is refused', () =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        const [mesh, local] = await cast(relay);
        const zero = { bytes: new Uint8Array(32) } as PublicKey;
        mesh.push(Buffer.concat([forwardPacketFrame(zero, local.publicKey, Buffer.from('nobody')), pingFrame]));
        await mesh.expectFrame(Frame.pong).catch(() => mesh.expectClose());
        const witness = await relay.connect({ key: mesh.key });
        await witness.send(local.publicKey, Buffer.from('somebody'));
        expect((await local.expectPacket()).packet.toString()).toBe('somebody');
      }));
  });

  it('is denied to a client whose mesh key is wrong', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const [local] = (await relay.onePerShard()) as [RawClient];
      for (const wrong of ['5b'.repeat(32), '00'.repeat(32)]) {
        const client = await relay.connect({ meshKey: wrong });
        client.push(forwardPacketFrame(PrivateKey.generate().publicKey, local.publicKey, Buffer.from('sneaky')));
        await client.expectClose();
      }
      await local.settle();
    }));

  it('is denied to everybody when the relay has no mesh key, also with one of zeros', () =>
    withRelay({ shards }, async (relay) => {
      const [local] = (await relay.onePerShard()) as [RawClient];
      for (const guess of [meshKey, '00'.repeat(32)]) {
        const client = await relay.connect({ meshKey: guess });
        client.push(forwardPacketFrame(PrivateKey.generate().publicKey, local.publicKey, Buffer.from('sneaky')));
        await client.expectClose();
      }
      await local.settle();
    }));

  it('mesh keys may be written in upper case', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const [local] = (await relay.onePerShard()) as [RawClient];
      const mesh = await relay.connect({ meshKey: meshKey.toUpperCase() });
      await mesh.write(forwardPacketFrame(mesh.publicKey, local.publicKey, Buffer.from('welcome')));
      expect((await local.expectPacket()).packet.toString()).toBe('welcome');
    }));

  it('ClosePeer of a mesh peer closes all connections of that key and no other', () =>
    withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
      const mesh = await relay.connect({ meshKey });
      for (const victim of await relay.onePerShard()) {
        const twin = await relay.connect({ key: victim.key });
        await mesh.write(frame(Frame.closePeer, victim.publicKey.bytes));
        await Promise.all([victim.expectClose(), twin.expectClose()]);
      }
      await mesh.settle();
    }));

  describe.each(placements(shards))('a packet forwarder, sender and key %s', (placement) => {
    async function cast(relay: TestRelay): Promise<[RawClient, PrivateKey]> {
      const sender = await relay.connect({ key: relay.keyOn(0) });
      return [sender, relay.keyNear(sender.publicKey, placement)];
    }

    it('gets packets of every size for a key that is not here', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, { publicKey: remote }] = await cast(relay);
        const forwarder = new RecordingForwarder();
        await register(relay, remote, forwarder);
        for (const size of [0, 1, 1400, 65_536]) {
          await sender.send(remote, patterned(size));
          const got = await forwarder.next();
          expect([got.source, got.destination]).toEqual([sender.publicKey.hex, remote.hex]);
          expect(got.packet.equals(patterned(size))).toBe(true);
        }
        await relay.untilCounter(['packets_forwarded_out'], (value) => value === 4);
      }));

    it('gets them in order', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, { publicKey: remote }] = await cast(relay);
        const forwarder = new RecordingForwarder();
        await register(relay, remote, forwarder);
        await sender.write(Buffer.concat(Array.from({ length: 20 }, (_, n) => sendPacketFrame(remote, Buffer.of(n)))));
        for (let n = 0; n < 20; n++) expect((await forwarder.next()).packet).toEqual(Buffer.of(n));
      }));

    it('gets nothing while the key is here, and everything after', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, key] = await cast(relay);
        const forwarder = new RecordingForwarder();
        await register(relay, key.publicKey, forwarder);
        const local = await relay.connect({ key });
        await sender.send(key.publicKey, Buffer.from('you are here'));
        expect((await local.expectPacket()).packet.toString()).toBe('you are here');
        local.destroy();
        await relay.untilCounter(['gauge_clients_local'], (value) => value === 1);
        await sender.send(key.publicKey, Buffer.from('you are away'));
        expect((await forwarder.next()).packet.toString()).toBe('you are away');
        expect(forwarder.calls).toBe(1);
      }));

    it('is the one registered first, and the next when that is removed', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, { publicKey: remote }] = await cast(relay);
        const forwarders = [new RecordingForwarder(), new RecordingForwarder(), new RecordingForwarder()] as const;
        for (const forwarder of [...forwarders, forwarders[0]]) await register(relay, remote, forwarder);
        for (const [n, forwarder] of forwarders.entries()) {
          await sender.send(remote, Buffer.of(n));
          expect((await forwarder.next()).packet).toEqual(Buffer.of(n));
          relay.server.removePacketForwarder(remote, forwarder);
        }
        expect(forwarders.map((forwarder) => forwarder.calls)).toEqual([1, 1, 1]);
        expect(relay.counter('multiforwarder_created')).toBe(1);
        expect(relay.counter('multiforwarder_deleted')).toBe(1);
        await relay.untilCounter(['gauge_clients_remote'], (value) => value === 0);
        await sender.send(remote, discoPacket());
        expect(await sender.expectPeerGone()).toEqual({ key: remote.hex, reason: NOT_HERE });
      }));

    it('stays when another one is removed that was never added', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, { publicKey: remote }] = await cast(relay);
        const forwarder = new RecordingForwarder();
        relay.server.removePacketForwarder(remote, forwarder);
        expect(relay.counter('packet_forwarder_delete_other_value')).toBe(0);
        await register(relay, remote, forwarder);
        relay.server.removePacketForwarder(remote, new RecordingForwarder());
        expect(relay.counter('packet_forwarder_delete_other_value')).toBe(1);
        await sender.send(remote, Buffer.from('to the one'));
        expect((await forwarder.next()).packet.toString()).toBe('to the one');
      }));

    it('that throws or rejects harms nobody', () =>
      withRelay({ shards }, async (relay) => {
        const [sender, { publicKey: remote }] = await cast(relay);
        for (const fail of [() => Promise.reject(new Error('link is down')), throws]) {
          const failing = new RecordingForwarder(fail);
          await register(relay, remote, failing);
          await sender.send(remote, Buffer.from('lost'));
          await failing.next();
          relay.server.removePacketForwarder(remote, failing);
          await relay.untilCounter(['gauge_clients_remote'], (value) => value === 0);
        }
        const forwarder = new RecordingForwarder();
        await register(relay, remote, forwarder);
        await sender.send(remote, Buffer.from('found'));
        expect((await forwarder.next()).packet.toString()).toBe('found');
      }));
  });

  it('keys with a forwarder only are counted as remote clients', () =>
    withRelay({ shards }, async (relay) => {
      const forwarder = new RecordingForwarder();
      const [local] = (await relay.onePerShard()) as [RawClient];
      relay.server.addPacketForwarder(PrivateKey.generate().publicKey, forwarder);
      relay.server.addPacketForwarder(local.publicKey, forwarder);
      await relay.untilCounter(['gauge_clients_remote'], (value) => value === 1);
      await relay.untilCounter(['gauge_clients_total'], (value) => value === shards + 1);
      relay.server.removePacketForwarder(local.publicKey, forwarder);
      await relay.untilCounter(['gauge_clients_total'], (value) => value === shards + 1);
    }));
});

const pingFrame = frame(Frame.ping, Buffer.alloc(8));

/** Registers a forwarder; the key's shard hears of it from the control plane, so it takes a moment. */
async function register(relay: TestRelay, key: PublicKey, forwarder: PacketForwarder): Promise<void> {
  relay.server.addPacketForwarder(key, forwarder);
  await relay.untilCounter(['gauge_clients_remote'], (value) => value === 1);
}

function throws(): never {
  throw new Error('link is broken');
}

interface Forwarded {
  source: string;
  destination: string;
  packet: Buffer;
}

/** Keeps what it was given, in order; then does as told. */
class RecordingForwarder implements PacketForwarder {
  calls = 0;
  readonly #then: () => void | Promise<void>;
  #waiting: ((forwarded: Forwarded) => void)[] = [];
  #kept: Forwarded[] = [];

  constructor(then: () => void | Promise<void> = () => undefined) {
    this.#then = then;
  }

  forwardPacket(source: PublicKey, destination: PublicKey, packet: Uint8Array): void | Promise<void> {
    this.calls++;
    const forwarded = { source: source.hex, destination: destination.hex, packet: Buffer.from(packet) };
    const waiting = this.#waiting.shift();
    if (waiting) waiting(forwarded);
    else this.#kept.push(forwarded);
    return this.#then();
  }

  next(): Promise<Forwarded> {
    const kept = this.#kept.shift();
    return kept ? Promise.resolve(kept) : new Promise((resolve) => this.#waiting.push(resolve));
  }
}
