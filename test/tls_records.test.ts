/** TLS records however they are cut: the relay sees the stream of frames that its client wrote. */
import { once } from 'node:events';
import { connect as connectTls, type SecureVersion, type TLSSocket } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { CutSocket } from './support/cut_socket.js';
import {
  clientInfoBody,
  Frame,
  frame,
  KEY_LENGTH,
  RawClient,
  sendPacketFrame,
  upgradeHead,
} from './support/raw_client.js';
import { patterned, SHARD_COUNTS, sharedRelay, type TestRelay, withRelay } from './support/relay.js';
import { opensslMissing, SClient } from './support/s_client.js';

const MAX_RECORD = 16_384;
const VERSIONS: SecureVersion[] = ['TLSv1.2', 'TLSv1.3'];
const RECORD_HEADER = 5;
const MESH_KEY = '5a'.repeat(32);

/** A Node client over a connection that the test has a hand in. */
async function overCut(
  relay: TestRelay,
  prepare: (cut: CutSocket) => void = () => undefined,
  version: SecureVersion = 'TLSv1.3',
): Promise<{ client: RawClient; cut: CutSocket; tls: TLSSocket }> {
  const cut = await CutSocket.connect(relay.port);
  prepare(cut);
  const tls = connectTls({ socket: cut, rejectUnauthorized: false, minVersion: version, maxVersion: version });
  await once(tls, 'secureConnect');
  return { client: relay.track(new RawClient(tls, undefined, cut.socket)), cut, tls };
}

/** Frames to `to` of every kind of length, one behind the other, and the packets in them. */
function frames(to: RawClient, count: number, length: (n: number) => number) {
  const packets = Array.from({ length: count }, (_, n) => patterned(length(n), n));
  return { packets, bytes: Buffer.concat(packets.map((packet) => sendPacketFrame(to.publicKey, packet))) };
}

async function expectPackets(to: RawClient, from: RawClient, packets: Buffer[]): Promise<void> {
  for (const [n, packet] of packets.entries()) {
    const got = await to.expectPacket();
    expect(got.source).toBe(from.publicKey.hex);
    if (!got.packet.equals(packet)) throw new Error(`packet ${n} of ${packet.length} bytes is not what was sent`);
  }
}

/** Ways of leaving, and how the relay calls them. */
const endings: [string, string, (cut: CutSocket, tls: TLSSocket) => void][] = [
  [
    'close_notify without FIN',
    'eof',
    (cut, tls) => {
      cut.endsTransport = false;
      tls.end();
    },
  ],
  ['close_notify and FIN', 'eof', (_, tls) => void tls.end()],
  ['FIN without close_notify', 'eof', (cut) => void cut.socket.end()],
  ['a reset', 'reset', (cut) => void cut.socket.resetAndDestroy()],
  ['FIN in the middle of a record', 'eof', (cut) => void cut.socket.end(Buffer.from('17030300', 'hex'))],
];

describe.each(SHARD_COUNTS)('a relay over TLS with %i shard(s)', (shards) => {
  const relay = sharedRelay({ shards, tls: true });

  describe.each(VERSIONS)('%s', (version) => {
    it('reads records of every size, in which frames begin and end anywhere', async () => {
      const { client } = await overCut(relay(), undefined, version);
      await client.open();
      const reader = await relay().connect({ key: relay().keyOn(0) });
      const sizes = [...Array.from({ length: 300 }, (_, n) => n + 1)];
      for (let size = 301; size < MAX_RECORD; size += 97) sizes.push(size);
      sizes.push(MAX_RECORD - 1, MAX_RECORD);
      const total = sizes.reduce((sum, size) => sum + size);
      // Few enough at a time for the reader's queue, whatever the kernel takes.
      const { packets, bytes } = frames(reader, 400, (n) => (n * 61) % 6000);
      const received = expectPackets(reader, client, packets);
      for (let at = 0, n = 0; at < Math.min(bytes.length, total); n++) {
        const size = sizes[n] ?? MAX_RECORD;
        await client.write(bytes.subarray(at, at + size));
        at += size;
      }
      await received;
    });

    it('reads many frames in a record, and many records in a segment', async () => {
      const { client, cut } = await overCut(relay(), undefined, version);
      await client.open();
      const reader = await relay().connect({ key: relay().keyOn(shards - 1) });
      const { packets, bytes } = frames(reader, 300, (n) => n % 40);
      cut.hold();
      for (let at = 0; at < bytes.length; at += 1000) await client.write(bytes.subarray(at, at + 1000));
      cut.release();
      await expectPackets(reader, client, packets);
    });

    it('reads a frame of the largest size, across records that begin anywhere in it', async () => {
      const { client } = await overCut(relay(), undefined, version);
      await client.open();
      const reader = await relay().connect({ key: relay().keyOn(0) });
      const { packets, bytes } = frames(reader, 1, () => 65_536);
      for (const first of [1, 4, 5, 6, 36, 37, 38, 1000, MAX_RECORD, 40_000, 65_540, bytes.length - 1]) {
        await client.write(bytes.subarray(0, first));
        await client.write(bytes.subarray(first));
        await expectPackets(reader, client, packets);
      }
    });

    it('reads a connection that comes byte by byte, its handshake too', async () => {
      const { client } = await overCut(
        relay(),
        (cut) => {
          cut.pieceSize = () => 1;
        },
        version,
      );
      await client.open({ fastStart: true });
      await client.settle();
    });
  });

  it('reads ClientInfo and packets that come together with the Finished of the client', async () => {
    const reader = await relay().connect();
    const { client, cut } = await overCut(relay(), (socket) => {
      // ClientHello leaves at once, what follows waits.
      const send = socket._write.bind(socket);
      let writes = 0;
      socket._write = (chunk, encoding, done) => {
        if (++writes === 2) socket.hold();
        send(chunk, encoding, done);
      };
    });
    const serverKey = relay().server.publicKey.bytes;
    const { packets, bytes } = frames(reader, 5, (n) => n * 100);
    await client.write(
      Buffer.concat([
        upgradeHead({ fastStart: true }),
        frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey })),
        bytes,
      ]),
    );
    cut.release();
    await client.readServerKey();
    await client.readServerInfo();
    await expectPackets(reader, client, packets);
  });

  it.each([
    ['a record that does not open', Buffer.concat([Buffer.from('1703030040', 'hex'), patterned(64)])],
    ['a record over 16,640 bytes', Buffer.concat([Buffer.from('1703034101', 'hex'), patterned(16_641)])],
    ['a plain fatal alert', Buffer.from('15030300020228', 'hex')],
    ['a plain ClientHello', Buffer.concat([Buffer.from('1603010040010000', 'hex'), patterned(61)])],
    ['a record of no known type', Buffer.concat([Buffer.from('2a03030010', 'hex'), patterned(16)])],
    ['plain HTTP', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ])('closes only the client that sends %s', async (_, bytes) => {
    const [from, to] = await relay().pair('on one shard');
    const failed = relay().counter('closed', 'tls_failed');
    const { client, cut } = await overCut(relay());
    await client.open();
    cut.socket.write(bytes);
    await client.expectClose();
    await relay().untilCounter(['closed', 'tls_failed'], (value) => value === failed + 1);
    await from.send(to.publicKey, patterned(1000));
    expect((await to.expectPacket()).packet).toEqual(patterned(1000));
  });

  it.each(endings)('forgets a client that leaves with %s', async (_, reason, leave) => {
    const closed = relay().counter('closed', reason);
    const { client, cut, tls } = await overCut(relay());
    await client.open();
    leave(cut, tls);
    await relay().untilCounter(['gauge_current_connections'], (value) => value === 0);
    expect(relay().counter('closed', reason)).toBe(closed + 1);
    await client.expectClose();
  });

  it('sends what a client is owed that came with its close_notify', async () => {
    const { client, cut, tls } = await overCut(relay());
    const reader = await relay().connect();
    await client.open();
    const { packets, bytes } = frames(reader, 20, () => 1000);
    cut.endsTransport = false;
    cut.hold();
    await client.write(bytes);
    tls.end();
    await once(tls, 'finish');
    cut.release();
    await expectPackets(reader, client, packets);
  });

  it('holds no more for a reader that stands still than its queues, sealed records included, and lets go of it', () =>
    withRelay({ shards, tls: true, timeouts: { write: 0 }, queues: { depth: 8 } }, async (relay) => {
      const [sender, frozen] = await relay.pair('on one shard');
      frozen.freeze();
      const packet = patterned(65_536);
      for (let n = 0; n < 300; n++) await sender.send(frozen.publicKey, packet);
      await relay.untilDropped('queue_head', 'other', (value) => value > 0);
      // Eight packets, one begun, and what was sealed of them before the kernel refused it.
      expect(relay.counter('gauge_queue_bytes')).toBeLessThan(11 * 70_000);
      await relay.server.consistencyCheck();
      frozen.thaw();
      await relay.untilCounter(['gauge_queue_bytes'], (value) => value === 0);
      const received = 300 - relay.dropped('queue_head', 'other');
      for (let n = 0; n < received; n++) expect((await frozen.expectPacket()).packet.equals(packet)).toBe(true);
    }));

  describe.skipIf(opensslMissing !== undefined)('with OpenSSL’s client', () => {
    it.each([
      ['TLS 1.2', ['-tls1_2']],
      ['TLS 1.3', ['-tls1_3']],
      ['records padded to 512 bytes', ['-tls1_3', '-record_padding', '512']],
      ['records padded to the largest size', ['-tls1_3', '-record_padding', '16384']],
      ['records of at most 512 bytes', ['-max_send_frag', '512']],
      ['ChaCha20', ['-tls1_3', '-ciphersuites', 'TLS_CHACHA20_POLY1305_SHA256']],
      ['AES-256', ['-tls1_3', '-ciphersuites', 'TLS_AES_256_GCM_SHA384']],
      ['P-384', ['-groups', 'P-384']],
    ])('relays both ways with %s', async (_, flags) => {
      await SClient.with(relay().port, flags, async (peer) => {
        await peer.client.open();
        const reader = await relay().connect({ key: relay().keyOn(0) });
        const { packets, bytes } = frames(reader, 60, (n) => (n * 509) % 30_000);
        const received = expectPackets(reader, peer.client, packets);
        for (let at = 0; at < bytes.length; at += 50_000) await peer.client.write(bytes.subarray(at, at + 50_000));
        await received;
        for (const packet of packets.slice(-20)) {
          await reader.send(peer.client.publicKey, packet);
          expect((await peer.client.expectPacket()).packet.equals(packet)).toBe(true);
        }
      });
    });

    it('updates keys as often as a client with something to say wants', async () => {
      await SClient.with(relay().port, ['-tls1_3', SClient.COMMANDS], async (peer) => {
        await peer.client.open();
        for (let n = 0; n < 40; n++) {
          await peer.command(n % 2 === 0 ? 'K' : 'k', 'KEYUPDATE');
          await peer.client.settle();
        }
      });
    });

    it('closes a client that updates keys without end', async () => {
      const [from, to] = await relay().pair('on one shard');
      const failed = relay().counter('closed', 'tls_failed');
      await SClient.with(relay().port, ['-tls1_3', SClient.COMMANDS], async (peer) => {
        await peer.client.open();
        for (let n = 0; n < 20; n++) await peer.command('K', 'KEYUPDATE');
        await peer.client.expectClose();
        await relay().untilCounter(['closed', 'tls_failed'], (value) => value === failed + 1);
        await from.send(to.publicKey, patterned(1000));
        expect((await to.expectPacket()).packet).toEqual(patterned(1000));
      });
    });

    it('does not negotiate anew', async () => {
      const [from, to] = await relay().pair('on one shard');
      await SClient.with(relay().port, ['-tls1_2', SClient.COMMANDS], async (peer) => {
        await peer.client.open();
        await peer.command('R', 'RENEGOTIATING');
        expect(await peer.ended()).not.toBe(0);
        expect(peer.stderr).toContain('no renegotiation');
        await from.send(to.publicKey, patterned(1000));
        expect((await to.expectPacket()).packet).toEqual(patterned(1000));
      });
    });
  });
});

describe('a relay over TLS', () => {
  it.skipIf(opensslMissing !== undefined)('says close_notify when it closes a client', () =>
    withRelay({ shards: 1, tls: true, mesh: { key: MESH_KEY } }, (relay) =>
      SClient.with(relay.port, [], async (peer) => {
        await peer.client.open();
        const mesh = await relay.connect({ meshKey: MESH_KEY });
        await mesh.write(frame(Frame.closePeer, peer.client.publicKey.bytes));
        await peer.client.expectClose();
        await peer.ended();
        expect(peer.stderr).not.toMatch(/unexpected eof|reset/i);
      }),
    ),
  );

  it.each(VERSIONS)('reads a %s connection that is cut anywhere', (version) =>
    withRelay({ shards: 2, tls: true }, async (relay) => {
      const reader = await relay.connect();
      const sent = (client: RawClient) =>
        Buffer.concat([
          upgradeHead({ fastStart: true }),
          frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey: relay.server.publicKey.bytes })),
          sendPacketFrame(reader.publicKey, patterned(10)),
        ]);
      const life = async (offset: number) => {
        const { client, cut } = await overCut(relay, (socket) => socket.cutAt(offset), version);
        await client.write(sent(client));
        await client.readServerKey();
        await client.readServerInfo();
        client.destroy();
        return Buffer.concat(cut.written).length;
      };
      const length = await life(0);
      let next = 1;
      const worker = async () => {
        while (next <= length) await life(next++);
      };
      await Promise.all(Array.from({ length: 8 }, worker));
      for (let n = 0; n <= length; ) {
        const { type, body } = await reader.nextFrame();
        if (type === Frame.peerGone) continue;
        expect([type, body.subarray(KEY_LENGTH)]).toEqual([Frame.recvPacket, patterned(10)]);
        n++;
      }
      expect(length).toBeGreaterThan(RECORD_HEADER * 4);
    }),
  );
});
