/** An admission server by URL: what is asked, what its answers mean, and servers that hang, lie, redirect or answer too much. */
import type { ServerResponse } from 'node:http';
import { createServer, type Server as NetServer } from 'node:net';
import { PrivateKey, type ServerAdmissionOptions } from 'derplane';
import { afterEach, describe, expect, test } from 'vitest';
import { UrlAdmission } from '../dist/admission/url.js';
import { askRelay, type FakeServer, startServer } from './support/admission.js';
import { LogWatch } from './support/log_watch.js';
import { freePort } from './support/ports.js';
import { withRelay } from './support/relay.js';

type Answer = Parameters<typeof startServer>[0];

const servers: FakeServer[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function serve(answer: Answer): Promise<FakeServer> {
  const server = await startServer(answer);
  servers.push(server);
  return server;
}

const allow = (_: unknown, response: ServerResponse) => response.end('{"Allow":true}');

/** What a relay with this server makes of a client, with the log. */
async function outcome(
  answer: Answer,
  options: ServerAdmissionOptions = { urlFailOpen: false },
): Promise<{ result: string; log: string; server: FakeServer; refused: number }> {
  const server = await serve(answer);
  const logger = new LogWatch();
  let result = '';
  let refused = 0;
  await withRelay({ shards: 1, logger, admission: { url: `${server.url}/path?q=1`, ...options } }, async (relay) => {
    result = await askRelay(relay);
    refused = relay.counter('admission_refused', 'url');
    if (result === 'refused') await logger.line(/rejected/);
  });
  return { result, log: logger.all(), server, refused };
}

test('is asked as derper asks it, at each connect', async () => {
  const server = await serve(allow);
  await withRelay({ shards: 1, admission: { url: `${server.url}/path?q=1` } }, async (relay) => {
    const key = PrivateKey.generate();
    for (let n = 0; n < 2; n++) expect(await askRelay(relay, {}, key)).toBe('admitted');
    expect(server.requests.map(({ line, body }) => ({ line, body }))).toEqual(
      Array(2).fill({
        line: 'POST /path?q=1',
        body: JSON.stringify({ NodePublic: String(key.publicKey), Source: '127.0.0.1' }),
      }),
    );
    expect(server.requests[0]!.headers).not.toHaveProperty('content-type');
  });
});

describe('an answer', () => {
  test.each([
    '{"Allow":true}',
    ' {"aLLOW":true,"other":[1]}',
    '{"Allow":false,"Allow":true}',
    '{"Allow":true,"Allow":null}',
    '{"Allow":true} and more',
    '{"Allow":true}{"Allow":false}',
    `{"Allow":true}${' '.repeat(10_000)}x`,
  ])('%.40j lets in', async (text) => {
    expect((await outcome((_, response) => response.end(text))).result).toBe('admitted');
  });

  test.each([
    '',
    '{}',
    'null',
    '[]',
    '{"Allow":"true"}',
    '{"Allow":1}',
    '{"Allow":false}',
    '{"Allow":true',
    'yes',
    `${' '.repeat(4090)}{"Allow":true}`,
  ])('%.40j refuses, and does not count as unreachable', async (text) => {
    const { result, refused, log } = await outcome((_, response) => response.end(text), { urlFailOpen: true });
    expect(result).toBe('refused');
    expect(refused).toBe(1);
    expect(log).not.toContain('unreachable');
  });

  test('that says no is logged in derper’s words', async () => {
    const { log } = await outcome((_, response) => response.end('{"Allow":false}'));
    expect(log).toMatch(
      /derp: 127\.0\.0\.1:\d+: client (nodekey:[0-9a-f]{64}) rejected: admission controller: \1\/127\.0\.0\.1 not allowed\n/,
    );
  });

  test.each([201, 204, 304, 403, 500])('of status %i refuses', async (status) => {
    const { result, log } = await outcome((_, response) => response.writeHead(status).end('{"Allow":true}'), {});
    expect(result).toBe('refused');
    expect(log).toMatch(new RegExp(`rejected: admission controller: ${status} \\w`));
  });

  test('is read to the end of its value only', async () => {
    const stall: Answer = (_, response) => void response.write('{"Allow":true}');
    expect((await outcome(stall)).result).toBe('admitted');
  });

  test('of megabytes is not read', async () => {
    let written = 0;
    const flood: Answer = (_, response) => {
      const more = () => {
        while (!response.destroyed && written < 64 << 20) {
          written += 1 << 16;
          if (!response.write(Buffer.alloc(1 << 16, ' '))) return void response.once('drain', more);
        }
      };
      more();
    };
    expect((await outcome(flood)).result).toBe('refused');
    expect(written).toBeLessThan(64 << 20);
  });

  test.each([
    ['{"Allow":true,"Label":"two words"}', 'Label: must be'],
    ['{"Allow":true,"RateLimitBytesPerSec":-1}', 'RateLimitBytesPerSec: must be'],
    ['{"Allow":true,"RateLimitBytesPerSec":1.5}', 'needs an integer'],
  ])('%s refuses and says why', async (text, why) => {
    const { result, log } = await outcome((_, response) => response.end(text));
    expect(result).toBe('refused');
    expect(log).toContain(why);
  });

  test('may carry a label and a limit', async () => {
    const server = await serve((_, response) =>
      response.end('{"Allow":true,"label":"team","RateLimitBytesPerSec":1000}'),
    );
    expect(await decide(server.url)).toEqual({ allow: true, label: 'team', receiveRate: 1000 });
  });
});

describe('redirects', () => {
  test.each([301, 302, 303])('%i becomes a GET', async (status) => {
    const { result, server } = await outcome((request, response) => {
      if (request.method === 'GET') response.end('{"Allow":true}');
      else response.writeHead(status, { Location: '/other' }).end();
    });
    expect(result).toBe('admitted');
    expect(server.requests.map(({ line }) => line)).toEqual(['POST /path?q=1', 'GET /other']);
  });

  test.each([307, 308])('%i repeats the POST', async (status) => {
    const { result, server } = await outcome((request, response) => {
      if (request.url === '/other') response.end('{"Allow":true}');
      else response.writeHead(status, { Location: '/other' }).end();
    });
    expect(result).toBe('admitted');
    expect(server.requests.map(({ line }) => line)).toEqual(['POST /path?q=1', 'POST /other']);
    expect(server.requests[1]!.body).toBe(server.requests[0]!.body);
  });

  test.each([
    [true, 'admitted'],
    [false, 'refused'],
  ])('for ever end after ten requests; with fail-open %s the client is %s', async (urlFailOpen, expected) => {
    const loop: Answer = (_, response) => void response.writeHead(307, { Location: '/again' }).end();
    const { result, server, log } = await outcome(loop, { urlFailOpen });
    expect(result).toBe(expected);
    expect(server.requests).toHaveLength(10);
    if (urlFailOpen) expect(log).toMatch(/admission controller unreachable; allowing client nodekey:/);
  });
});

describe('a server that is unreachable', () => {
  test.each([
    [undefined, 'admitted'],
    [false, 'refused'],
  ])('with fail-open %s: the client is %s', async (urlFailOpen, expected) => {
    const logger = new LogWatch();
    const url = `http://127.0.0.1:${await freePort()}`;
    const admission = { url, ...(urlFailOpen !== undefined && { urlFailOpen }) };
    await withRelay({ shards: 1, logger, admission }, async (relay) => {
      expect(await askRelay(relay)).toBe(expected);
      const isOpen = urlFailOpen !== false;
      expect(relay.counter('admission_failed_open')).toBe(isOpen ? 1 : 0);
      expect(relay.counter('admission_refused', 'url')).toBe(isOpen ? 0 : 1);
      await logger.line(
        isOpen ? /allowing client nodekey:/ : /rejected: admission controller unreachable: .*ECONNREFUSED/,
      );
    });
  });

  test('is one that does not answer in time; one that stalls in its answer refuses', async () => {
    const silent = await serve(() => undefined);
    expect(await decide(silent.url, { failOpen: true, timeout: 200 })).toEqual({ allow: true });
    await expect(decide(silent.url, { timeout: 200 })).rejects.toThrow('no answer within 0.2 s');
    const stalled = await serve((_, response) => void response.write('{"Allow":'));
    await expect(decide(stalled.url, { failOpen: true, timeout: 200 })).rejects.toThrow('did not end in time');
    // A head that never ends is no answer.
    const dripping = await rawServer('HTTP/1.1 200 OK\r\nX-Drip: ');
    expect(await decide(dripping.url, { failOpen: true, timeout: 200 })).toEqual({ allow: true });
    await dripping.close();
  });

  test('holds up nobody else: a hundred at once wait for their answers together', async () => {
    const waiting: ServerResponse[] = [];
    const server = await serve((_, response) => {
      waiting.push(response);
      if (waiting.length === 100) for (const one of waiting) one.end('{"Allow":true}');
    });
    await withRelay({ shards: 2, admission: { url: server.url } }, async (relay) => {
      const results = await Promise.all(Array.from({ length: 100 }, () => askRelay(relay)));
      expect(results).toEqual(Array(100).fill('admitted'));
      expect(relay.counter('gauge_admission_waiting')).toBe(0);
    });
  });
});

test('a connection that the server closed meanwhile is not taken for a server that is unreachable', async () => {
  let connections = 0;
  const server: NetServer = createServer((socket) => {
    connections++;
    let requests = 0;
    socket.on('error', () => undefined);
    socket.on('data', (data) => {
      if (!data.toString().includes('NodePublic')) return;
      // It keeps the connection, and resets it at the next request.
      if (requests++ > 0) socket.resetAndDestroy();
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"Allow":true}');
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const source = sourceOf(`http://127.0.0.1:${(server.address() as { port: number }).port}`);
  for (let n = 0; n < 3; n++) expect(await source.admit(request(), signal())).toEqual({ allow: true });
  expect(connections).toBeGreaterThan(1);
  source.close();
  await new Promise((resolve) => server.close(resolve));
});

test('a proxy of the environment is asked, but not for loopback', async () => {
  const proxy = await serve((_, response) => response.end('{"Allow":true,"Label":"proxy"}'));
  const direct = await serve(allow);
  process.env['HTTP_PROXY'] = proxy.url;
  try {
    expect(await decide('http://admission.invalid/x')).toEqual({ allow: true, label: 'proxy' });
    expect(proxy.requests.map(({ line }) => line)).toEqual(['POST http://admission.invalid/x']);
    expect(await decide(direct.url)).toEqual({ allow: true });
    process.env['NO_PROXY'] = 'admission.invalid';
    await expect(decide('http://admission.invalid/x')).rejects.toThrow('unreachable');
  } finally {
    delete process.env['HTTP_PROXY'];
    delete process.env['NO_PROXY'];
  }
});

test('a cache keeps what lets in, by key and address, for its time', async () => {
  let isAllowed = false;
  const server = await serve((_, response) => response.end(JSON.stringify({ Allow: isAllowed, Label: 'a' })));
  const source = sourceOf(server.url, { cache: 3_600_000 });
  const key = PrivateKey.generate().publicKey;
  const from = (address: string) => source.admit({ ...request(), key, address }, signal());
  await expect(from('192.0.2.1:1')).rejects.toThrow('not allowed');
  isAllowed = true;
  expect(await from('192.0.2.1:1')).toEqual({ allow: true, label: 'a' });
  isAllowed = false;
  expect(await from('192.0.2.1:2')).toEqual({ allow: true, label: 'a' });
  expect(server.requests).toHaveLength(2);
  await expect(from('192.0.2.2:1')).rejects.toThrow('not allowed');
  const other = { ...request(), address: '192.0.2.1:1' };
  await expect(source.admit(other, signal())).rejects.toThrow('not allowed');
  source.close();
  const brief = sourceOf(server.url, { cache: 1 });
  isAllowed = true;
  await brief.admit({ ...request(), key }, signal());
  await expect
    .poll(async () => brief.admit({ ...request(), key }, signal()).then(() => server.requests.length))
    .toBeGreaterThan(5);
  brief.close();
});

test('the source is empty where the address is unknown, and IPv6 has no brackets', async () => {
  const server = await serve(allow);
  const source = sourceOf(server.url);
  for (const address of ['', '[2001:db8::1]:443']) await source.admit({ ...request(), address }, signal());
  expect(server.requests.map(({ body }) => JSON.parse(body).Source)).toEqual(['', '2001:db8::1']);
  source.close();
});

function request() {
  return { key: PrivateKey.generate().publicKey, address: '127.0.0.1:1', appName: '', version: 2, isProber: false };
}

function signal(): AbortSignal {
  return new AbortController().signal;
}

function sourceOf(url: string, options: { failOpen?: boolean; cache?: number; timeout?: number } = {}): UrlAdmission {
  return new UrlAdmission({ url, failOpen: false, cache: 0, onFailOpen: () => undefined, ...options });
}

async function decide(url: string, options: { failOpen?: boolean; timeout?: number } = {}) {
  const source = sourceOf(url, options);
  return source.admit(request(), signal()).finally(() => source.close());
}

/** Answers every connection with these bytes, one after another for ever. */
async function rawServer(head: string): Promise<{ url: string; close(): Promise<void> }> {
  const server = createServer((socket) => {
    socket.write(head);
    const timer = setInterval(() => socket.write('x'), 10);
    socket.on('error', () => undefined);
    socket.on('close', () => clearInterval(timer));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
