/** Connections given to a relay one by one, by `accept`. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { PrivateKey, Server, type ServerOptions } from 'derplane';
import { describe, expect, it } from 'vitest';
import { clientInfoBody, Frame, frame, RawClient, sendPacketFrame } from './support/raw_client.js';
import { patterned, SHARD_COUNTS } from './support/relay.js';

const NOTHING = Buffer.alloc(0);

/** A connection to hand to `accept`, and the client at its other end. */
type Link = () => Promise<{ served: Duplex; client: RawClient }>;

const links: [string, Link][] = [
  ['a net.Socket', tcpLink],
  ['a TLSSocket', tlsLink],
  ['a plain Duplex', duplexLink],
];

describe.each(SHARD_COUNTS)('accept() of a relay with %i shard(s)', (shards) => {
  describe.each(links)('of %s', (_, link) => {
    it('relays, and resolves when the client ends the connection', () =>
      withServer({ shards }, async (server) => {
        const [a, b] = [await accepted(server, link), await accepted(server, link)];
        for (const size of [0, 1, 1400, 65_536]) {
          await a.client.send(b.client.publicKey, patterned(size, 1));
          expect((await b.client.expectPacket()).packet.equals(patterned(size, 1))).toBe(true);
          await b.client.send(a.client.publicKey, patterned(size, 2));
          expect((await a.client.expectPacket()).packet.equals(patterned(size, 2))).toBe(true);
        }
        a.client.destroy();
        await a.ended;
        expect(await b.client.expectPeerGone()).toEqual({ key: a.client.publicKey.hex, reason: 0 });
        b.client.stream.end();
        await b.ended;
        await b.client.expectClose();
      }));

    it('carries 200 packets in a row in order', () =>
      withServer({ shards }, async (server) => {
        const [a, b] = [await accepted(server, link), await accepted(server, link)];
        for (let n = 0; n < 200; n++) {
          await a.client.send(b.client.publicKey, patterned(1400, n));
          expect((await b.client.expectPacket()).packet.equals(patterned(1400, n))).toBe(true);
        }
        a.client.destroy();
        b.client.destroy();
        await Promise.all([a.ended, b.ended]);
      }));

    it('resolves when the relay closes the connection, and closes it', () =>
      withServer({ shards }, async (server) => {
        const { client, ended } = await accepted(server, link);
        client.push(frame(Frame.ping, patterned(7)));
        await client.expectClose();
        await ended;
      }));

    it('resolves when the handshake fails, and closes the connection', () =>
      withServer({ shards }, async (server) => {
        const { served, client } = await link();
        const ended = server.accept(served, NOTHING);
        await client.readServerKey();
        client.push(frame(Frame.ping, patterned(8)));
        await client.expectClose();
        await ended;
      }));

    it('resolves when the server is closed', async () => {
      const server = new Server(PrivateKey.generate(), { shards, handshake: { threads: 1 } });
      const adopted = await accepted(server, link);
      const shaking = await link();
      const unfinished = server.accept(shaking.served, NOTHING);
      await shaking.client.readServerKey();
      await server.close();
      await Promise.all([adopted.ended, unfinished, adopted.client.expectClose(), shaking.client.expectClose()]);
    });

    it('starts with the bytes of head', () =>
      withServer({ shards }, async (server) => {
        const peer = await accepted(server, link);
        const { served, client } = await link();
        const info = frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey: server.publicKey.bytes }));
        const packet = sendPacketFrame(peer.client.publicKey, Buffer.from('from the head'));
        const bytes = Buffer.concat([info, packet]);
        // The rest follows on the connection itself, from the middle of a frame on.
        const ended = server.accept(served, bytes.subarray(0, -5));
        await client.write(bytes.subarray(-5));
        expect(await peer.client.expectPacket()).toEqual({
          source: client.publicKey.hex,
          packet: Buffer.from('from the head'),
        });
        client.destroy();
        peer.client.destroy();
        await Promise.all([ended, peer.ended]);
      }));
  });

  it('after close() rejects, and destroys the connection', async () => {
    const server = new Server(PrivateKey.generate(), { shards, handshake: { threads: 1 } });
    await server.close();
    const { served, client } = await tcpLink();
    await expect(server.accept(served, NOTHING)).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
    await client.expectClose();
  });

  it('of a socket that is already gone resolves', () =>
    withServer({ shards }, async (server) => {
      const { served, client } = await tcpLink();
      const gone = new Promise((resolve) => served.once('close', resolve));
      served.resume();
      client.reset();
      await gone;
      await server.accept(served, NOTHING);
    }));
});

async function withServer(options: ServerOptions, body: (server: Server) => Promise<void>): Promise<void> {
  const server = new Server(PrivateKey.generate(), { handshake: { threads: 1 }, ...options });
  try {
    await body(server);
    await server.consistencyCheck();
  } finally {
    await server.close();
  }
}

/** A client past its handshake, and the promise of `accept`. */
async function accepted(server: Server, link: Link): Promise<{ client: RawClient; ended: Promise<void> }> {
  const { served, client } = await link();
  const ended = server.accept(served, NOTHING);
  await client.handshake();
  return { client, ended };
}

async function tcpLink(): Promise<{ served: Duplex; client: RawClient }> {
  const listener = createServer({ allowHalfOpen: true, noDelay: true }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const connection = once(listener, 'connection') as Promise<[Socket]>;
  const client = await RawClient.dial((listener.address() as AddressInfo).port);
  const [served] = await connection;
  listener.close();
  // A reset before the relay took the socket over is the owner's to handle.
  served.on('error', () => undefined);
  return { served, client };
}

async function tlsLink(): Promise<{ served: Duplex; client: RawClient }> {
  const secret = { psk: Buffer.alloc(32, 9), identity: 'test' };
  const options = { ciphers: 'PSK', maxVersion: 'TLSv1.2' } as const;
  const listener = createTlsServer({ ...options, pskCallback: () => secret.psk }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const connection = once(listener, 'secureConnection') as Promise<[Duplex]>;
  const { port } = listener.address() as AddressInfo;
  const socket = connectTls({
    ...options,
    port,
    host: '127.0.0.1',
    pskCallback: () => secret,
    checkServerIdentity: () => undefined,
  });
  const [served] = await connection;
  listener.close();
  served.on('error', () => undefined);
  return { served, client: new RawClient(socket) };
}

/** Two ends in memory: no descriptor anywhere. */
async function duplexLink(): Promise<{ served: Duplex; client: RawClient }> {
  const ends: Duplex[] = [];
  const make = (peer: number) =>
    new Duplex({
      read() {
        this.emit('taken');
      },
      write(chunk: Buffer, _, done) {
        const other = ends[peer] as Duplex;
        if (other.destroyed) done(new Error('the other end is closed'));
        else if (other.push(chunk)) done();
        else other.once('taken', () => done());
      },
      final(done) {
        (ends[peer] as Duplex).push(null);
        done();
      },
      destroy(error, done) {
        const other = ends[peer] as Duplex;
        if (!other.destroyed) other.push(null);
        done(error);
      },
    });
  ends.push(make(1), make(0));
  const [served, other] = ends as [Duplex, Duplex];
  return { served, client: new RawClient(other) };
}
