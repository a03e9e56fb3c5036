/** What strangers do to a relay over TLS, and connections that change hands at bad moments. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { PrivateKey, RelayClient, Server, TlsContext } from 'derplane';
import { describe, expect, inject, it } from 'vitest';
import { trustOf } from '../dist/client/dial_tls.js';
import { openConnection } from '../dist/client/open_connection.js';
import type { TlsStream } from '../dist/tls/tls_stream.js';
import { clientInfoBody, Frame, frame, RawClient, upgradeHead } from './support/raw_client.js';
import { anyNameContext, type TestRelay, withRelay } from './support/relay.js';
import { keyUpdate, RecordType, Tls13Records } from './support/tls13_records.js';

/** A DERP client whose every record is the test's. */
async function openRecords(relay: TestRelay): Promise<{ client: RawClient; records: Tls13Records }> {
  const records = await Tls13Records.connect(relay.port, inject('relayCertificate').cert);
  const stream = new Duplex({
    read: () => undefined,
    write: (chunk, _encoding, done) => void records.socket.write(records.sealData(chunk), () => done()),
  });
  records.stream.on('data', (chunk) => stream.push(chunk));
  records.socket.on('close', () => stream.destroy());
  return { client: await relay.track(new RawClient(stream, undefined, records.socket)).open(), records };
}

/** A frame that the relay passes over. */
const unknownFrame = frame(0x20, Buffer.alloc(20));

describe('changes of keys', () => {
  const updates = (records: Tls13Records, count: number, dataBetween: number) =>
    Buffer.concat(
      Array.from({ length: count }, () => [
        records.seal(RecordType.handshake, keyUpdate(true)),
        ...Array.from({ length: dataBetween }, () => records.sealData(unknownFrame)),
      ]).flat(),
    );

  it('end a client that asks for many of them with a little data between', () =>
    withRelay({ shards: 1, tls: true }, async (relay) => {
      const { client, records } = await openRecords(relay);
      records.socket.write(updates(records, 100, 1));
      await client.expectClose();
      await relay.untilCounter(['closed', 'tls_failed'], (value) => value === 1);
    }));

  it('may go on for ever behind enough data', () =>
    withRelay({ shards: 1, tls: true }, async (relay) => {
      const { client, records } = await openRecords(relay);
      records.socket.write(updates(records, 100, 256));
      await client.settle();
    }));
});

describe('an upgrade on a connection that served a page', () => {
  it('loses nothing that came while the page was still being written', async () => {
    const page = Buffer.alloc(8 << 20, 'x');
    const httpServer = createServer((_request, response) => response.end(page));
    const upgrading = once(httpServer, 'upgrade') as Promise<[unknown, TlsStream]>;
    await withRelay({ shards: 1, tls: true }, async (relay) => {
      const { port } = await relay.listen({ httpServer });
      const stream = connectTls({ port, host: '127.0.0.1', ca: inject('relayCertificate').cert });
      await once(stream, 'secureConnect');
      const client = relay.track(new RawClient(stream));
      client.freeze();
      await client.write(Buffer.from('GET /page HTTP/1.1\r\nHost: relay.test\r\n\r\n'));
      await client.write(upgradeHead({ fastStart: true }));
      const [, taken] = await upgrading;
      const serverKey = relay.server.publicKey.bytes;
      const ping = frame(Frame.ping, Buffer.from('12345678'));
      await client.write(Buffer.concat([frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey })), ping]));
      while (taken.socket.readableLength + taken.readableLength === 0)
        await new Promise((resolve) => setImmediate(resolve));
      client.thaw();
      await client.readHead();
      await client.nextBytes(page.length);
      await client.readServerKey();
      await client.readServerInfo();
      expect(await client.expectFrame(Frame.pong)).toEqual(ping.subarray(5));
    });
  });
});

describe('a greeting', () => {
  /** What Node's client says first. */
  async function clientHello(options: ConnectionOptions = {}): Promise<Buffer> {
    const sent = new Promise<Buffer>((resolve) => {
      const socket = new Duplex({ read: () => undefined, write: (chunk: Buffer) => resolve(chunk) });
      connectTls({ ...options, socket }).on('error', () => undefined);
    });
    return sent;
  }
  const record = (type: number, content: Uint8Array) => Buffer.from([type, 3, 3, 0, content.length, ...content]);
  /** A ClientHello of 128 KiB begins. */
  const endless = Buffer.from([1, 2, 1, 0x44]);
  const bytewise = (content: Uint8Array) => Buffer.concat([...content].map((byte) => record(22, [byte] as never)));

  async function dialled(relay: TestRelay): Promise<RawClient> {
    const socket = connect({ port: relay.port, host: '127.0.0.1', noDelay: true });
    await once(socket, 'connect');
    return relay.track(new RawClient(socket));
  }

  it.each([
    ['in one record', () => record(22, endless)],
    ['a byte in each record', () => bytewise(endless)],
    ['behind an alert', () => Buffer.concat([record(21, Buffer.from([1, 90])), record(22, endless)])],
  ])('that claims more than it may have is refused at its header, %s', (_how, bytes) =>
    withRelay({ shards: 1, tls: true }, async (relay) => {
      const client = await dialled(relay);
      await client.write(bytes());
      await client.expectClose();
      expect(relay.counter('handshakes_failed', 'tls')).toBe(1);
    }),
  );

  it('that is to be said again with another key is no longer either', () =>
    withRelay({ shards: 1, tls: true }, async (relay) => {
      const client = await dialled(relay);
      await client.write(await clientHello({ ecdhCurve: 'P-521:P-384' }));
      await client.nextBytes(5);
      await client.write(Buffer.concat([record(20, Buffer.of(1)), record(22, endless)]));
      await client.expectClose();
      expect(relay.counter('handshakes_failed', 'tls')).toBe(1);
    }));

  it('may have to be said again with another key', () =>
    withRelay({ shards: 1, tls: true }, async (relay) => {
      const tls = { ca: inject('relayCertificate').cert, ecdhCurve: 'P-521:P-384' };
      const client = await relay.dial(undefined, { tls });
      await client.open();
    }));

  it('may come a byte in each record, and each byte alone', () =>
    withRelay({ shards: 1, tls: true }, async (relay) => {
      const client = await dialled(relay);
      const hello = (await clientHello()).subarray(5);
      for (const byte of bytewise(hello)) client.push(Buffer.of(byte));
      expect((await client.nextBytes(1))[0]).toBe(22);
    }));
});

describe('certificates', () => {
  it('of one context tell each of two relays by its own key', async () => {
    const tls = anyNameContext();
    const relays = [PrivateKey.generate(), PrivateKey.generate()].map(
      (key) => new Server(key, { shards: 1, handshake: { threads: 1 } }),
    );
    try {
      const listeners = await Promise.all(relays.map((relay) => relay.listen({ host: '127.0.0.1', port: 0, tls })));
      for (const { port } of listeners) {
        const client = new RelayClient(PrivateKey.generate(), `https://127.0.0.1:${port}/derp`, {
          ca: inject('relayCertificate').cert,
        });
        await client.connect();
        expect(await client.recv()).toMatchObject({ type: 'serverInfo' });
        client.close();
      }
    } finally {
      await Promise.all(relays.map((relay) => relay.close()));
    }
  });

  it('of addresses are wanted again when they were given up and are expected again', async () => {
    const wanted: string[] = [];
    let tell: () => void = () => undefined;
    const tls = new TlsContext({ onWanted: (name) => wanted.push(name) && tell() });
    await withRelay({ shards: 1, tls }, async (relay) => {
      for (const count of [1, 2]) {
        tls.expect('*');
        const asked = new Promise<void>((resolve) => {
          tell = resolve;
        });
        const stream = connectTls({ port: relay.port, host: '127.0.0.1', rejectUnauthorized: false });
        const failed = once(stream, 'error');
        await asked;
        expect(wanted).toEqual(Array.from({ length: count }, () => '127.0.0.1'));
        tls.unexpect('*');
        // The end of the connection is an error, too.
        await failed.catch(() => undefined);
      }
    });
  });

  it('may be for a name that is written with its last dot', () =>
    withRelay({ shards: 1, tls: true }, async (relay) => {
      const options = { ca: inject('relayCertificate').cert, certName: 'relay.test.' };
      const client = new RelayClient(PrivateKey.generate(), relay.url, options);
      await client.connect();
      client.close();
    }));

  it.each(['.', '.test', '..'])('are not believed for the host %j, which is none', (host) =>
    withRelay({ shards: 1, tls: true }, async (relay) => {
      const dialling = {
        url: new URL(`https://${host}:${relay.port}/derp`),
        dialHost: '127.0.0.1',
        timeout: 10_000,
        signal: new AbortController().signal,
        trust: trustOf({ ca: inject('relayCertificate').cert }),
        fastStart: false,
        idealNode: undefined,
        clientInfo: () => Buffer.alloc(0),
      };
      await expect(openConnection(dialling, async () => 'connected')).rejects.toMatchObject({ code: 'ERR_DERP_TLS' });
    }),
  );
});
