/** What strangers do to a relay over TLS, and connections that change hands at bad moments. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { describe, expect, inject, it } from 'vitest';
import type { TlsStream } from '../dist/tls/tls_stream.js';
import { clientInfoBody, Frame, frame, RawClient, upgradeHead } from './support/raw_client.js';
import { type TestRelay, withRelay } from './support/relay.js';
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
      while (taken.socket.readableLength === 0) await new Promise((resolve) => setImmediate(resolve));
      client.thaw();
      await client.readHead();
      await client.skip(page.length);
      await client.readServerKey();
      await client.readServerInfo();
      expect(await client.expectFrame(Frame.pong)).toEqual(ping.subarray(5));
    });
  });
});
