/** A client that learns the relay's key from its meta certificate: ClientInfo goes out with the request. */
import { X509Certificate } from 'node:crypto';
import type { TlsOptions } from 'node:tls';
import { createPageServer, PrivateKey, RelayClient, type RelayClientOptions, Server, TlsContext } from 'derplane';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Box } from '../dist/protocol/box.js';
import { FrameType, serverKeyFrame } from '../dist/protocol/frame.js';
import { openClientInfo, sealServerInfo } from '../dist/protocol/info.js';
import { makeMetaCertificate } from '../dist/tls/meta_certificate.js';
import { makeCertificate, type TestCertificate } from './support/certificates.js';
import { type FakeConnection, FakeRelay } from './support/fake_relay.js';

const MESH_KEY = 'cd'.repeat(32);
const withCode = (code: string) => expect.objectContaining({ name: 'DerpError', code });

const relays: FakeRelay[] = [];
const clients: RelayClient[] = [];
let leaf: TestCertificate;

beforeAll(async () => {
  leaf = await makeCertificate({ names: ['127.0.0.1'] });
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const relay of relays.splice(0)) await relay.close();
});

/** The meta certificate as relays make it, or one with another serial number, hexadecimal, or name. */
async function metaOf(key: PrivateKey, serialNumber?: string, name = `derpkey${key.publicKey.hex}`): Promise<string> {
  if (serialNumber !== undefined) return (await makeCertificate({ names: [], commonName: name, serialNumber })).cert;
  return new X509Certificate(await makeMetaCertificate(key.publicKey)).toString();
}

async function relayWith(meta: string, privateKey: PrivateKey, tls: TlsOptions = {}): Promise<FakeRelay> {
  const relay = await FakeRelay.start({ tls: { cert: leaf.cert + meta, key: leaf.keyPem, ...tls }, privateKey });
  relays.push(relay);
  return relay;
}

async function tellingRelay(tls?: TlsOptions): Promise<FakeRelay> {
  const key = PrivateKey.generate();
  return relayWith(await metaOf(key), key, tls);
}

/** A connection on which the client has not been told anything. */
async function begin(relay: FakeRelay, options: RelayClientOptions = {}) {
  const client = new RelayClient(PrivateKey.generate(), relay.url, { ca: leaf.cert, ...options });
  clients.push(client);
  const connecting = client.connect();
  connecting.catch(() => undefined);
  const connection = await relay.connection();
  return { client, connecting, connection, head: await connection.readHead() };
}

/** Opens the ClientInfo that comes without ServerKey, and lets the client in. */
async function letIn(connection: FakeConnection, { privateKey }: FakeRelay) {
  const { type, body } = await connection.nextFrame();
  expect(type).toBe(FrameType.CLIENT_INFO);
  const opened = openClientInfo(body, privateKey);
  connection.write(serverKeyFrame(privateKey.publicKey), sealServerInfo(opened.key, privateKey, opened.box));
  return opened;
}

describe('a meta certificate', () => {
  it('saves the round trip', async () => {
    const relay = await tellingRelay();
    const { client, connecting, connection, head } = await begin(relay, { meshKey: MESH_KEY, appName: 'test' });
    expect(head).toContain('Derp-Fast-Start: 1\r\n');
    const { key, info } = await letIn(connection, relay);
    await connecting;
    expect(key.equals(client.publicKey)).toBe(true);
    expect(info).toMatchObject({ meshKey: MESH_KEY, appName: 'test' });
    expect(client.serverPublicKey?.equals(relay.privateKey.publicKey)).toBe(true);
    expect((await client.recv()).type).toBe('serverInfo');
  });

  it('does so for a relay that sends neither 101 nor ServerKey', async () => {
    const relay = await tellingRelay();
    const { connecting, connection } = await begin(relay);
    const opened = openClientInfo((await connection.nextFrame()).body, relay.privateKey);
    connection.write(sealServerInfo(opened.key, relay.privateKey, opened.box));
    await connecting;
  });

  it('does so though the relay answers with 101', async () => {
    const relay = await tellingRelay();
    const { connecting, connection } = await begin(relay);
    connection.switchProtocols();
    await letIn(connection, relay);
    await connecting;
  });

  it('may stand anywhere in the chain', async () => {
    const key = PrivateKey.generate();
    const other = await makeCertificate({ names: [], commonName: 'other' });
    const relay = await relayWith((await metaOf(key)) + other.cert, key);
    const { connecting, connection } = await begin(relay);
    await letIn(connection, relay);
    await connecting;
  });

  it.each(['01', '02', 'ff'])('with serial number 0x%s counts', async (serial) => {
    const key = PrivateKey.generate();
    const { head } = await begin(await relayWith(await metaOf(key, serial), key));
    expect(head).toContain('Derp-Fast-Start');
  });

  it.each<[string, string, string?]>([
    ['serial number 0', '00'],
    ['serial number 256', '0100'],
    ['a name that is no key', '02', 'derpkey0123'],
    ['another name', '02', `derpkex${'ab'.repeat(32)}`],
    ['the key of nobody', '02', `derpkey${'00'.repeat(32)}`],
  ])('with %s does not: the client waits for the relay', async (_what, serial, name) => {
    const key = PrivateKey.generate();
    const relay = await relayWith(await metaOf(key, serial, name), key);
    const { connecting, connection, head } = await begin(relay);
    expect(head).not.toContain('Derp-Fast-Start');
    connection.switchProtocols();
    await connection.letIn();
    await connecting;
  });

  it('over TLS 1.2 does not: everybody could read it there', async () => {
    const { connecting, connection, head } = await begin(await tellingRelay({ maxVersion: 'TLSv1.2' }));
    expect(head).not.toContain('Derp-Fast-Start');
    connection.switchProtocols();
    await connection.letIn();
    await connecting;
  });
});

describe('the key that it tells', () => {
  it('must be the one that is wanted, else nothing is said', async () => {
    const relay = await tellingRelay();
    const client = new RelayClient(PrivateKey.generate(), relay.url, {
      ca: leaf.cert,
      serverPublicKey: PrivateKey.generate().publicKey,
    });
    clients.push(client);
    const connecting = client.connect();
    await expect(connecting).rejects.toThrow(withCode('ERR_DERP_BAD_HANDSHAKE'));
    await expect(connecting).rejects.toThrow(
      `${relay.url} has the key ${relay.privateKey.publicKey}, not the one wanted`,
    );
    const connection = await relay.connection();
    await expect(connection.readHead()).rejects.toThrow('the client closed the connection');
  });

  it('may be the one that is wanted', async () => {
    const relay = await tellingRelay();
    const { connecting, connection } = await begin(relay, { serverPublicKey: relay.privateKey.publicKey });
    await letIn(connection, relay);
    await connecting;
  });

  it('must be the one that the relay has', async () => {
    const relay = await relayWith(await metaOf(PrivateKey.generate()), PrivateKey.generate());
    const { client, connecting, connection } = await begin(relay);
    const { body } = await connection.nextFrame();
    expect(() => openClientInfo(body, relay.privateKey)).toThrow(withCode('ERR_DERP_BOX'));
    const box = new Box(client.publicKey, relay.privateKey);
    connection.write(sealServerInfo(client.publicKey, relay.privateKey, box));
    await expect(connecting).rejects.toThrow(withCode('ERR_DERP_BOX'));
    expect(client.generation).toBe(1);
  });
});

describe('an HTTP answer in fast start over TLS', () => {
  it.each([
    [426, 'Upgrade Required', 'DERP requires connection upgrade\n'],
    [404, 'Not Found', 'derp server disabled\n'],
    [502, 'Bad Gateway', ''],
  ])('of status %i is an error with its text', async (status, words, text) => {
    const relay = await tellingRelay();
    const { connecting, connection } = await begin(relay);
    const head = `HTTP/1.1 ${status} ${words}\r\nContent-Length: ${text.length}\r\n\r\n`;
    // In pieces, of which the first tells nothing yet.
    connection.write(Buffer.from(head.slice(0, 4)));
    connection.write(Buffer.from(head.slice(4) + text));
    await expect(connecting).rejects.toThrow(withCode('ERR_DERP_HTTP_STATUS'));
    const quoted = text === '' ? '' : `: ${JSON.stringify(text.trim())}`;
    await expect(connecting).rejects.toThrow(`${relay.url} answered ${status} ${words} to the DERP upgrade${quoted}`);
    await connection.ended();
  });

  it('whose head is endless is an error', async () => {
    const { connecting, connection } = await begin(await tellingRelay());
    connection.write(Buffer.from(`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(20_000)}`));
    await expect(connecting).rejects.toThrow(withCode('ERR_DERP_BAD_HANDSHAKE'));
  });

  it('with other bytes is no relay', async () => {
    const { connecting, connection } = await begin(await tellingRelay());
    connection.write(Buffer.from('SSH-2.0-OpenSSH_9.6\r\n'));
    connection.socket.end();
    await expect(connecting).rejects.toThrow(expect.objectContaining({ name: 'DerpError' }));
  });
});

it('the relay of this package tells its key', async () => {
  const server = new Server(PrivateKey.generate(), { shards: 1, handshake: { threads: 1 } });
  const tls = new TlsContext();
  tls.set('*', [{ cert: leaf.cert, key: leaf.keyPem }]);
  const { port } = await server.listen({ host: '127.0.0.1', port: 0, tls, httpServer: createPageServer() });
  const url = `https://127.0.0.1:${port}/derp`;
  try {
    const wrong = new RelayClient(PrivateKey.generate(), url, {
      ca: leaf.cert,
      serverPublicKey: PrivateKey.generate().publicKey,
    });
    clients.push(wrong);
    // It is the certificate that tells: ServerKey would not be compared, but fail to open.
    await expect(wrong.connect()).rejects.toThrow('not the one wanted');
    const client = new RelayClient(PrivateKey.generate(), url, { ca: leaf.cert });
    clients.push(client);
    await client.connect();
    expect(client.serverPublicKey?.equals(server.publicKey)).toBe(true);
    await server.consistencyCheck();
  } finally {
    await server.close();
  }
});
