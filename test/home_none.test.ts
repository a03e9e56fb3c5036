/** `-home none`: HTTP tells a stranger nothing. */
import { connect } from 'node:net';
import { createPageServer, debugPages } from 'derplane';
import { describe, expect, test } from 'vitest';
import { boundedServer } from '../dist/http/page_server.js';
import { plainPages } from '../dist/http/plain_pages.js';
import { end, listen } from './support/debug_server.js';
import { withRelay } from './support/relay.js';

/** Everything that comes back until the server closes; bytes that it did not read make that a reset. */
async function exchange(port: number, request: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  let answer = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    answer += chunk;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ECONNRESET') answer = String(error);
  });
  socket.write(request);
  await new Promise((resolve) => socket.once('close', resolve));
  return answer;
}

const request = (method: string, target: string, ...headers: string[]) =>
  [`${method} ${target} HTTP/1.1`, 'Host: derp.example', 'Connection: close', ...headers, '', ''].join('\r\n');

/** What only scanners ask. */
const UNKNOWN: [name: string, bytes: string][] = [
  ['the home page', request('GET', '/')],
  ['an unknown path', request('GET', '/admin')],
  ['robots.txt', request('GET', '/robots.txt')],
  ['/derp without an upgrade', request('GET', '/derp')],
  ['/derp with another upgrade', request('GET', '/derp', 'Upgrade: h2c')],
  ['a POST to a probe', request('POST', '/derp/probe')],
  ['another spelling of a path', request('GET', '//generate_204')],
  ['OPTIONS *', request('OPTIONS', '*')],
  ['CONNECT', request('CONNECT', 'example.com:443')],
  ['a debug page that it may not see', request('GET', '/debug/')],
  ['/debug', request('GET', '/debug')],
  ['no Host header', 'GET / HTTP/1.1\r\n\r\n'],
  ['another version', 'GET / HTTP/3.0\r\n\r\n'],
  ['another protocol', 'SSH-2.0-scanner\r\n\r\n'],
  ['a header name with a blank', 'GET / HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n'],
  ['a head without end', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(10_000)}`],
];

const KNOWN: [name: string, bytes: string, status: number][] = [
  ['a probe', request('GET', '/derp/probe'), 200],
  ['the latency check', request('HEAD', '/derp/latency-check'), 200],
  ['the captive portal check', request('GET', '/generate_204'), 204],
  ['bootstrap DNS', request('GET', '/bootstrap-dns?q=x'), 200],
];

const denied = { home: 'none', debug: debugPages({ access: () => false }), access: () => false };

describe.each(['a page server', "a relay's listener"])('%s with home none', (kind) => {
  const serve = (body: (port: number) => Promise<void>) => {
    if (kind === 'a page server') {
      const server = createPageServer(denied);
      return listen(server).then((port) => body(port).finally(() => end(server)));
    }
    return withRelay({ shards: 1 }, async ({ server }) => {
      const { port } = await server.listen({ host: '127.0.0.1', port: 0, httpServer: createPageServer(denied) });
      await body(port);
    });
  };

  test.each(UNKNOWN)('closes without a byte on %s', (_, bytes) =>
    serve(async (port) => {
      expect(await exchange(port, bytes)).toBe('');
    }),
  );

  test.each(KNOWN)('answers %s', (_, bytes, status) =>
    serve(async (port) => {
      expect(await exchange(port, bytes)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    }),
  );
});

test('who may debug sees the debug pages', async () => {
  const access = () => true;
  const server = createPageServer({ home: 'none', debug: debugPages({ access }), access });
  const port = await listen(server);
  try {
    expect(await exchange(port, request('GET', '/debug/'))).toContain('<b>Uptime:</b>');
    expect(await exchange(port, request('GET', '/debug'))).toMatch(/^HTTP\/1.1 307 .*Location: \/debug\/\r\n/s);
  } finally {
    await end(server);
  }
});

describe('plain HTTP beside HTTPS with home none', () => {
  const serve = async (access: () => boolean, body: (port: number) => Promise<void>) => {
    const pages = (_: unknown, response: { end(text: string): void }) => response.end('pages');
    const challenge = ({ url }: { url?: string | undefined }, response: { end(text: string): void }) => {
      if (url?.startsWith('/.well-known/') !== true) return false;
      response.end('token');
      return true;
    };
    const server = boundedServer(plainPages({ pages, challenge, access, hidden: true }), { hidden: true });
    const port = await listen(server);
    await body(port).finally(() => end(server));
  };

  test.each([
    ['the home page', request('GET', '/')],
    ['a path that would lead to HTTPS', request('GET', '/derp/probe')],
    ['a POST', request('POST', '/')],
    ['another spelling of a path', request('GET', '/x/../y')],
    ['OPTIONS *', request('OPTIONS', '*')],
    ['a malformed request', 'GET / HTTP/1.1\r\n\r\n'],
  ])('closes without a byte on %s', (_, bytes) =>
    serve(
      () => false,
      async (port) => {
        expect(await exchange(port, bytes)).toBe('');
      },
    ),
  );

  test('answers the captive portal check and ACME validations', () =>
    serve(
      () => false,
      async (port) => {
        expect(await exchange(port, request('GET', '/generate_204'))).toMatch(/^HTTP\/1.1 204 /);
        expect(await exchange(port, request('GET', '/.well-known/acme-challenge/x'))).toMatch(/token$/);
      },
    ));

  test('leads who may debug to the debug pages', () =>
    serve(
      () => true,
      async (port) => {
        expect(await exchange(port, request('GET', '/'))).toContain('Location: https://derp.example/debug/\r\n');
      },
    ));
});
