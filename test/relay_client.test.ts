import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { RelayClient, type RelayClientOptions } from '../dist/client/relay_client.js';
import { FrameType, frameOf } from '../dist/protocol/frame.js';
import { PrivateKey, PublicKey } from '../dist/protocol/key.js';
import { FakeRelay } from './support/fake_relay.js';

const KEY = PublicKey.fromBytes(Buffer.alloc(32, 0xaa));
const MESH_KEY = 'cd'.repeat(32);
const withCode = (code: string) => expect.objectContaining({ name: 'DerpError', code });
let relay: FakeRelay;
let made: RelayClient[];

beforeEach(async () => {
  relay = await FakeRelay.start();
  made = [];
});

afterEach(async () => {
  for (const client of made) client.close();
  await relay.close();
});

function newClient(options: RelayClientOptions = {}, url = relay.url): RelayClient {
  const client = new RelayClient(PrivateKey.generate(), url, options);
  made.push(client);
  return client;
}

describe('the request', () => {
  it.each([
    [{}, { 'derp-fast-start': undefined, 'ideal-node': undefined }],
    [{ fastStart: true }, { 'derp-fast-start': '1', 'ideal-node': undefined }],
    [{ idealNode: '1a' }, { 'derp-fast-start': undefined, 'ideal-node': '1a' }],
    [
      { fastStart: true, idealNode: '1a' },
      { 'derp-fast-start': '1', 'ideal-node': '1a' },
    ],
  ])('with %j carries its headers', async (options, wanted) => {
    const client = newClient(options, `${relay.url}?x=1`);
    const connecting = client.connect();
    const connection = await relay.connection();
    const [line, ...rest] = (await connection.readHead()).trimEnd().split('\r\n');
    const headers = Object.fromEntries(rest.map((text) => [text.split(': ')[0]!.toLowerCase(), text.split(': ')[1]]));
    expect(line).toBe('GET /derp?x=1 HTTP/1.1');
    expect(headers).toMatchObject({ host: `127.0.0.1:${relay.port}`, connection: 'Upgrade', upgrade: 'DERP' });
    expect(headers['derp-fast-start']).toBe(wanted['derp-fast-start']);
    expect(headers['ideal-node']).toBe(wanted['ideal-node']);
    if (!('fastStart' in options)) connection.switchProtocols();
    await connection.letIn();
    await connecting;
    expect(client.generation).toBe(1);
    expect(client.serverPublicKey?.equals(relay.privateKey.publicKey)).toBe(true);
  });

  it('may be answered with 101 in spite of fast start', async () => {
    const client = newClient({ fastStart: true });
    const connecting = client.connect();
    const connection = await relay.connection();
    await connection.readHead();
    connection.switchProtocols();
    await connection.letIn();
    await connecting;
  });

  it('is not sent for a URL or option that cannot be', () => {
    const bad: [string, RelayClientOptions, string][] = [
      ['ftp://derp.example/derp', {}, 'scheme ftp: must be https or http'],
      ['https://derp.example/derp', { certName: 'sha256-raw:0f' }, '"sha256-raw:0f" is not a pin'],
      ['http://user:secret@derp.example/derp', {}, 'takes no user or password'],
      [relay.url, { idealNode: 'a\r\nb' }, 'idealNode has characters'],
      [relay.url, { meshKey: 'x' }, 'meshKey: 1 characters'],
    ];
    for (const [url, options, message] of bad) {
      expect(() => newClient(options, url)).toThrow(withCode('ERR_DERP_BAD_OPTION'));
      expect(() => newClient(options, url)).toThrow(message);
      expect(() => newClient(options, url)).not.toThrow('secret');
    }
  });
});

describe('connecting fails', () => {
  it.each([false, true])('with the status and text of another answer (fast start %s)', async (fastStart) => {
    const client = newClient({ fastStart });
    const sending = client.send(KEY, Buffer.alloc(1));
    const connection = await relay.connection();
    await connection.readHead();
    const text = 'DERP requires connection upgrade\n';
    connection.write(Buffer.from(`HTTP/1.1 426 Upgrade Required\r\nContent-Length: ${text.length}\r\n\r\n${text}`));
    await expect(sending).rejects.toThrow(withCode('ERR_DERP_HTTP_STATUS'));
    await expect(sending).rejects.toThrow(
      `${relay.url} answered 426 Upgrade Required to the DERP upgrade: "DERP requires`,
    );
    await connection.ended();
  });

  it.each([false, true])('when the relay closes without an answer (fast start %s)', async (fastStart) => {
    const client = newClient({ fastStart });
    const connecting = client.connect();
    (await relay.connection()).socket.destroy();
    await expect(connecting).rejects.toThrow(withCode('ERR_DERP_CONNECT'));
  });

  it.each([false, true])('when the answer does not come in time (fast start %s)', async (fastStart) => {
    const client = newClient({ connectTimeout: 50, fastStart });
    await expect(client.connect()).rejects.toThrow(withCode('ERR_DERP_TIMEOUT'));
    await (await relay.connection()).ended();
  });

  it('when ServerKey does not come in time', async () => {
    const client = newClient({ connectTimeout: 100 });
    const connecting = client.connect();
    const connection = await relay.connection();
    await connection.readHead();
    connection.switchProtocols();
    await expect(connecting).rejects.toThrow(withCode('ERR_DERP_TIMEOUT'));
    await connection.ended();
  });

  it('when nobody listens', async () => {
    const { url } = relay;
    await relay.close();
    await expect(newClient({}, url).recv()).rejects.toThrow(withCode('ERR_DERP_CONNECT'));
    relay = await FakeRelay.start();
  });

  it('when an endless head follows fast start', async () => {
    const connecting = newClient({ fastStart: true }).connect();
    const connection = await relay.connection();
    connection.write(Buffer.from(`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(20_000)}`));
    await expect(connecting).rejects.toThrow(withCode('ERR_DERP_BAD_HANDSHAKE'));
  });

  it('and the next call tries again', async () => {
    const client = newClient();
    const failing = client.connect();
    (await relay.connection()).socket.destroy();
    await expect(failing).rejects.toThrow(withCode('ERR_DERP_CONNECT'));
    await Promise.all([client.connect(), relay.client()]);
    expect(client.generation).toBe(1);
  });
});

describe('a lost connection', () => {
  it('is reported by recv once, after what arrived; then the next call reconnects', async () => {
    const client = newClient();
    const [, first] = await Promise.all([client.connect(), relay.client()]);
    expect(await client.recvDetail()).toMatchObject({ generation: 1, message: { type: 'serverInfo' } });
    first.socket.end(frameOf(FrameType.HEALTH, Buffer.from('last')));
    expect(await client.recvDetail()).toEqual({ generation: 1, message: { type: 'health', problem: 'last' } });
    await expect(client.recv()).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
    const [detail] = await Promise.all([client.recvDetail(), relay.client()]);
    expect(detail).toMatchObject({ generation: 2, message: { type: 'serverInfo' } });
  });

  it('is reported by recv even if a send has reconnected meanwhile', async () => {
    const client = newClient();
    const [, first] = await Promise.all([client.connect(), relay.client()]);
    first.socket.destroy();
    const second = relay.client();
    // Until the client has noticed, sends go to the dead connection, or fail with it.
    const generation = async () => {
      await client.send(KEY, Buffer.alloc(1)).catch(() => {});
      return client.generation;
    };
    await expect.poll(generation).toBe(2);
    await second;
    expect(await client.recvDetail()).toMatchObject({ generation: 1, message: { type: 'serverInfo' } });
    await expect(client.recv()).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
    expect(await client.recvDetail()).toMatchObject({ generation: 2, message: { type: 'serverInfo' } });
    expect(client.generation).toBe(2);
  });

  it('is made up for by one new connection, however many ask', async () => {
    const client = newClient();
    const sends = Array.from({ length: 10 }, (_, i) => client.send(KEY, Buffer.from([i])));
    const connection = await relay.client();
    await Promise.all(sends);
    for (let i = 0; i < 10; i++) expect((await connection.nextFrame()).body[32]).toBe(i);
    expect(client.generation).toBe(1);
  });

  it('loses neither preference nor watching', async () => {
    const client = newClient({ meshKey: MESH_KEY });
    const [, first] = await Promise.all([client.connect(), relay.client()]);
    await client.notePreferred(true);
    await client.watchConnectionChanges();
    expect((await first.nextFrame()).type).toBe(FrameType.NOTE_PREFERRED);
    expect((await first.nextFrame()).type).toBe(FrameType.WATCH_CONNS);
    first.socket.destroy();
    await client.recv();
    await expect(client.recv()).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
    const [, second] = await Promise.all([client.send(KEY, Buffer.alloc(1)), relay.client()]);
    expect(await second.nextFrame()).toMatchObject({ type: FrameType.NOTE_PREFERRED, body: Buffer.from([1]) });
    expect((await second.nextFrame()).type).toBe(FrameType.WATCH_CONNS);
    expect((await second.nextFrame()).type).toBe(FrameType.SEND_PACKET);
  });
});

describe('watching', () => {
  it('without a mesh key fails before it connects', async () => {
    const client = newClient();
    await expect(client.watchConnectionChanges()).rejects.toThrow(withCode('ERR_DERP_NO_MESH_KEY'));
    expect(client.generation).toBe(0);
  });

  it('asked for before connecting is said once', async () => {
    const client = newClient({ meshKey: MESH_KEY });
    const [, connection] = await Promise.all([client.watchConnectionChanges(), relay.client()]);
    await client.notePreferred(true);
    expect((await connection.nextFrame()).type).toBe(FrameType.WATCH_CONNS);
    expect((await connection.nextFrame()).type).toBe(FrameType.NOTE_PREFERRED);
  });
});

describe('close', () => {
  it('is final', async () => {
    const client = newClient();
    await Promise.all([client.connect(), relay.client()]);
    await client.recv();
    const waiting = client.recv();
    client.close();
    client.close();
    await expect(waiting).rejects.toThrow('the client was closed');
    await expect(client.send(KEY, Buffer.alloc(1))).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
    await expect(client.recv()).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
    await expect(client.ping()).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
  });

  it('ends an attempt to connect', async () => {
    const client = newClient();
    const connecting = client.connect();
    const connection = await relay.connection();
    client.close();
    await expect(connecting).rejects.toThrow('the client was closed');
    await connection.ended();
  });

  it('ends iteration without an error', async () => {
    const client = newClient();
    const [, connection] = await Promise.all([client.connect(), relay.client()]);
    connection.write(frameOf(FrameType.KEEP_ALIVE));
    const seen: string[] = [];
    for await (const { type } of client) {
      seen.push(type);
      if (type === 'keepAlive') client.close();
    }
    expect(seen).toEqual(['serverInfo', 'keepAlive']);
  });
});
