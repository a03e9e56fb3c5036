/** The client over TLS, when things go wrong on the way: what it says, how soon, and that it leaves nothing behind. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { TlsOptions } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { PrivateKey, RelayClient, type RelayClientOptions } from 'derplane';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { FrameType, frameOf } from '../dist/protocol/frame.js';
import { makeCertificate, type TestCertificate } from './support/certificates.js';
import { FakeRelay } from './support/fake_relay.js';

/** Milliseconds for attempts that must fail by their deadline. */
const SHORT = 150;
/** The same where a handshake must be done by then. */
const LONGER = 1_000;
const withCode = (code: string) => expect.objectContaining({ name: 'DerpError', code });

const ends: (() => unknown)[] = [];
let leaf: TestCertificate;
let tls: TlsOptions;

beforeAll(async () => {
  leaf = await makeCertificate({ names: ['127.0.0.1'] });
  tls = { cert: leaf.cert, key: leaf.keyPem };
});

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

function clientOf(url: string, options: RelayClientOptions = {}): RelayClient {
  const client = new RelayClient(PrivateKey.generate(), url, { ca: leaf.cert, ...options });
  ends.push(() => client.close());
  return client;
}

async function fakeRelay(more: TlsOptions = {}): Promise<FakeRelay> {
  const relay = await FakeRelay.start({ tls: { ...tls, ...more } });
  ends.push(() => relay.close());
  return relay;
}

/** A server of which every connection is `serve`'s. */
async function serverOf(serve: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => undefined));
    serve(socket);
  });
  return listening(server, () => {
    for (const socket of sockets) socket.destroy();
  });
}

async function listening(server: Server, end: () => void = () => undefined): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  ends.push(async () => {
    end();
    server.close();
    await once(server, 'close');
  });
  return `https://127.0.0.1:${(server.address() as { port: number }).port}/derp`;
}

/** Passes on everything to a relay, and of its answer the first `count` bytes; then does `then`. */
function cutAfter(relay: FakeRelay, count: number, then: (socket: Socket) => void): Promise<string> {
  return serverOf((socket) => {
    const upstream = connect(relay.port, '127.0.0.1');
    ends.push(() => upstream.destroy());
    let left = count;
    upstream.on('error', () => undefined);
    upstream.on('data', (chunk) => {
      if (left === 0) return;
      socket.write(chunk.subarray(0, left));
      left -= Math.min(left, chunk.length);
      if (left === 0) then(socket);
    });
    socket.pipe(upstream);
    if (count === 0) socket.once('data', () => then(socket));
  });
}

async function failureOf(url: string, options?: RelayClientOptions): Promise<{ code: string; message: string }> {
  const error = await clientOf(url, options)
    .connect()
    .then(
      () => new Error('connected'),
      (failure: Error) => failure,
    );
  expect(error.name).toBe('DerpError');
  expect(error.message).toContain(url);
  expect(error.message).not.toContain('\n');
  return error as Error & { code: string };
}

/** A record with an alert of TLS 1.2's form, which every handshake understands. */
const alert = (description: number, level = 2) => Buffer.from([0x15, 3, 3, 0, 2, level, description]);

describe('what does not speak TLS', () => {
  const plain = /does not speak TLS; is it a plain one\?$/;

  it('is said to be so when it speaks HTTP', async () => {
    const url = await listening(createHttpServer((_request, response) => response.end('hello\n')));
    const { code, message } = await failureOf(url);
    expect(code).toBe('ERR_DERP_TLS');
    expect(message).toMatch(plain);
  });

  it('is said to be so when it speaks first', async () => {
    const url = await serverOf((socket) => socket.write('220 mail.example.com ESMTP\r\n'));
    const { code, message } = await failureOf(url);
    expect(code).toBe('ERR_DERP_TLS');
    expect(message).toMatch(plain);
  });

  it('is said to be so when it speaks DERP', async () => {
    const relay = await FakeRelay.start();
    ends.push(() => relay.close());
    const url = relay.url.replace('http:', 'https:');
    const failing = failureOf(url);
    (await relay.connection()).write(Buffer.from('DERP🔑'.padEnd(40)));
    expect(await failing).toMatchObject({ code: 'ERR_DERP_TLS' });
  });
});

describe('an alert', () => {
  it.each([
    [0, 'close_notify'],
    [10, 'unexpected_message'],
    [40, 'handshake_failure'],
    [70, 'protocol_version'],
    [80, 'internal_error'],
    [112, 'unrecognized_name'],
    [255, 'nothing that is known'],
  ])('%i (%s) ends the handshake', async (description) => {
    const url = await serverOf((socket) => socket.once('data', () => socket.write(alert(description))));
    expect((await failureOf(url)).code).toBe('ERR_DERP_TLS');
  });

  it('that the relay knows no such name says for what', async () => {
    const url = await serverOf((socket) => socket.once('data', () => socket.write(alert(80))));
    expect((await failureOf(url)).message).toMatch(/does it have a certificate for "127\.0\.0\.1"\?$/);
  });

  it('may come after the handshake', async () => {
    const relay = await fakeRelay({ requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' });
    const { code, message } = await failureOf(relay.url);
    expect(code).toBe('ERR_DERP_TLS');
    expect(message).toContain('alert certificate required');
  });

  it('is sent to a relay that is not trusted', async () => {
    const relay = await fakeRelay();
    const server = await cutAfter(relay, Number.POSITIVE_INFINITY, () => undefined);
    const rejected = once(relay.server, 'tlsClientError');
    const stranger = await makeCertificate({ names: [], commonName: 'stranger', ca: true });
    expect((await failureOf(server, { ca: stranger.cert })).code).toBe('ERR_DERP_CERTIFICATE');
    const [heard] = (await rejected) as [NodeJS.ErrnoException];
    expect(heard.message).toContain('alert');
  });
});

it.each([
  [
    'a relay without a version in common',
    { maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' },
  ],
  ['a relay without a cipher in common', { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA' }],
] as [string, TlsOptions][])('%s is refused', async (_what, more) => {
  const relay = await fakeRelay(more);
  expect((await failureOf(relay.url)).code).toBe('ERR_DERP_TLS');
});

/** Bytes of a relay's answer: in ServerHello, the certificate, the end of its flight and after it. */
const CUTS = [0, 1, 4, 5, 6, 50, 127, 128, 200, 400, 600, 800];

describe('a handshake that breaks off', () => {
  it.each(CUTS)('after %i bytes, by the end of the connection', async (count) => {
    const url = await cutAfter(await fakeRelay(), count, (socket) => socket.end());
    const { code } = await failureOf(url);
    expect(code).toMatch(/^ERR_DERP_(TLS|CONNECT)$/);
  });

  it.each(CUTS)('after %i bytes, by a reset', async (count) => {
    const url = await cutAfter(await fakeRelay(), count, (socket) => socket.resetAndDestroy());
    // Whether the client hears of it or reads an end behind the bytes is the kernel's choice.
    const { code } = await failureOf(url);
    expect(code).toMatch(/^ERR_DERP_(TLS|CONNECT)$/);
  });

  it.each(CUTS)('after %i bytes, by silence', async (count) => {
    const url = await cutAfter(await fakeRelay(), count, () => undefined);
    const { code, message } = await failureOf(url, { connectTimeout: SHORT });
    expect(code).toBe('ERR_DERP_TIMEOUT');
    expect(message).toContain(`within ${SHORT} ms`);
  });

  it.each(CUTS)('after %i bytes, by close()', async (count) => {
    let arrived = (_socket: Socket): void => undefined;
    const cut = new Promise<Socket>((resolve) => {
      arrived = resolve;
    });
    const url = await cutAfter(await fakeRelay(), count, arrived);
    const client = clientOf(url);
    const connecting = client.connect();
    const socket = await cut;
    client.close();
    await expect(connecting).rejects.toThrow('the client was closed');
    if (!socket.closed) await new Promise((closed) => socket.once('close', closed));
  });

  it.each([0, 1, 5, 60, 127])('by a byte that is wrong, number %i', async (position) => {
    const relay = await fakeRelay();
    const url = await serverOf((socket) => {
      const upstream = connect(relay.port, '127.0.0.1').on('error', () => undefined);
      ends.push(() => upstream.destroy());
      upstream.once('data', (chunk) => {
        chunk[position] = chunk[position]! ^ 0x55;
        socket.write(chunk);
        upstream.pipe(socket);
      });
      socket.pipe(upstream);
    });
    const { code } = await failureOf(url, { connectTimeout: SHORT });
    // A length that was made greater is waited for.
    expect(code).toMatch(/^ERR_DERP_(TLS|TIMEOUT)$/);
  });
});

describe('after the handshake', () => {
  it.each([false, true])('an answer that does not come ends by the deadline (fast start %s)', async (fastStart) => {
    const relay = await fakeRelay();
    const failing = failureOf(relay.url, { connectTimeout: LONGER, fastStart });
    const connection = await relay.connection();
    expect((await failing).code).toBe('ERR_DERP_TIMEOUT');
    await connection.ended();
  });

  it('a ServerKey that does not come ends by the deadline', async () => {
    const relay = await fakeRelay();
    const failing = failureOf(relay.url, { connectTimeout: LONGER });
    const connection = await relay.connection();
    await connection.readHead();
    connection.switchProtocols();
    expect((await failing).code).toBe('ERR_DERP_TIMEOUT');
    await connection.ended();
  });

  it.each([false, true])('close() ends the wait for an answer (fast start %s)', async (fastStart) => {
    const relay = await fakeRelay();
    const client = clientOf(relay.url, { fastStart });
    const connecting = client.connect();
    const connection = await relay.connection();
    await connection.readHead();
    client.close();
    await expect(connecting).rejects.toThrow('the client was closed');
    await connection.ended();
  });

  it.each([false, true])('the end of the connection is no answer (fast start %s)', async (fastStart) => {
    const relay = await fakeRelay();
    const failing = failureOf(relay.url, { fastStart });
    const connection = await relay.connection();
    await connection.readHead();
    connection.socket.end();
    expect((await failing).code).toBe('ERR_DERP_CONNECT');
  });

  it.each([426, 404, 503])('an answer of status %i is an error with its text', async (status) => {
    const relay = await fakeRelay();
    const failing = failureOf(relay.url);
    const connection = await relay.connection();
    await connection.readHead();
    connection.write(Buffer.from(`HTTP/1.1 ${status} No\r\nContent-Length: 6\r\n\r\nsorry\n`));
    const { code, message } = await failing;
    expect(code).toBe('ERR_DERP_HTTP_STATUS');
    expect(message).toContain(`${relay.url} answered ${status}`);
    expect(message).toMatch(/"sorry"$/);
    await connection.ended();
  });

  it('what came before the end is still received, however late', async () => {
    const relay = await fakeRelay();
    const client = clientOf(relay.url);
    const [, connection] = await Promise.all([client.connect(), relay.client()]);
    const say = (from: number, to: number) => {
      for (let i = from; i < to; i++) connection.write(frameOf(FrameType.HEALTH, Buffer.from(`${i}`)));
    };
    // More than the client's queue takes, so that what comes behind waits in the stream.
    say(0, 600);
    await client.recv();
    expect(await client.recv()).toEqual({ type: 'health', problem: '0' });
    say(600, 700);
    connection.socket.end();
    await once(connection.socket, 'close');
    for (let i = 1; i < 700; i++) expect(await client.recv()).toEqual({ type: 'health', problem: `${i}` });
    await expect(client.recv()).rejects.toThrow(withCode('ERR_DERP_CLOSED'));
  });
});

it('a program that failed in every way ends by itself', async () => {
  const program = fileURLToPath(new URL('support/tls_dial_child.mjs', import.meta.url));
  const relay = await fakeRelay();
  const wrongName = await makeCertificate({ names: ['other.example'] });
  const other = await fakeRelay({ cert: wrongName.cert, key: wrongName.keyPem });
  const dials: [string, RelayClientOptions][] = [
    [await serverOf((socket) => socket.write('hello there\r\n')), {}],
    [await serverOf(() => undefined), { connectTimeout: SHORT }],
    [await serverOf((socket) => socket.once('data', () => socket.write(alert(40)))), {}],
    [await cutAfter(relay, 200, (socket) => socket.end()), {}],
    [await cutAfter(relay, 200, (socket) => socket.resetAndDestroy()), {}],
    [await cutAfter(relay, 200, () => undefined), { connectTimeout: SHORT }],
    [relay.url, { connectTimeout: SHORT }],
    [relay.url, { connectTimeout: SHORT, fastStart: true }],
    [relay.url, { certName: `sha256-raw:${'0'.repeat(64)}` }],
    [other.url, {}],
  ];
  const args = [program, JSON.stringify(dials.map(([url, options]) => [url, { ca: leaf.cert, ...options }]))];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 30_000 });
  const codes = stdout
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { code?: string }).code);
  const [ofTls, ofCertificate, late] = ['ERR_DERP_TLS', 'ERR_DERP_CERTIFICATE', 'ERR_DERP_TIMEOUT'];
  const reset = expect.stringMatching(/^ERR_DERP_(TLS|CONNECT)$/);
  expect(codes).toEqual([ofTls, late, ofTls, ofTls, reset, late, late, late, ofCertificate, ofCertificate]);
});
