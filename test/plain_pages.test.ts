import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, test } from 'vitest';
import { boundedServer } from '../dist/http/page_server.js';
import { pages } from '../dist/http/pages.js';
import { type PlainPagesOptions, plainPages } from '../dist/http/plain_pages.js';
import { ask, end, listen } from './support/debug_server.js';

let server: Server | undefined;
afterEach(async () => {
  if (server !== undefined) await end(server);
  server = undefined;
});

const debug = (_request: IncomingMessage, response: ServerResponse) => void response.end('debug page');

/** For visitors who may not see debug pages, unless `options` say otherwise. */
function serve(options: Partial<PlainPagesOptions> = {}): Promise<number> {
  server = boundedServer(plainPages({ pages: pages({ debug }), access: () => false, ...options }));
  return listen(server);
}

/** Sends raw bytes, returns all that comes until the server closes. */
async function raw(port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  socket.end(bytes);
  return text(socket);
}

const HOST = { Host: 'derp.example.com' };

describe('plain HTTP', () => {
  test('answers the captive portal check with its challenge', async () => {
    const port = await serve();
    for (const method of ['GET', 'HEAD', 'POST']) {
      const { status, headers } = await ask(port, '/generate_204', method, { 'X-Tailscale-Challenge': 'ts_x.y' });
      expect(status).toBe(204);
      expect(headers['x-tailscale-response']).toBe('response ts_x.y');
      expect(headers['cache-control']).toBe('no-cache, no-store, must-revalidate, no-transform, max-age=0');
    }
  });

  test.each([
    ['/', 'https://derp.example.com/'],
    ['/x/y?z=1&a=%20', 'https://derp.example.com/x/y?z=1&a=%20'],
    ['/derp', 'https://derp.example.com/derp'],
    ['/derp/probe', 'https://derp.example.com/derp/probe'],
    ['/generate_204/', 'https://derp.example.com/generate_204/'],
    ['/"<script>', 'https://derp.example.com/%22%3Cscript%3E'],
    ['http://other.example.com/x', 'https://other.example.com/x'],
  ])('sends %s to HTTPS', async (path, location) => {
    const port = await serve();
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await ask(port, path, method, HOST);
      expect({ status, location: headers.location }).toEqual({ status: 302, location });
    }
  });

  test('keeps the port of the Host header, as derper', async () => {
    const { headers } = await ask(await serve(), '/x', 'GET', { Host: '[2001:db8::1]:8080' });
    expect(headers.location).toBe('https://[2001:db8::1]:8080/x');
  });

  test.each(['evil.example.com/path', 'a b', 'a@b', 'x'.repeat(256)])('refuses the Host header %j', async (host) => {
    expect((await ask(await serve(), '/', 'GET', { Host: host })).status).toBe(400);
  });

  test('refuses a request without a Host header', async () => {
    expect(await raw(await serve(), 'GET / HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('refuses other methods', async () => {
    const port = await serve();
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      const { status, body } = await ask(port, '/', method, HOST);
      expect({ status, body }).toEqual({ status: 400, body: 'Use HTTPS\n' });
    }
  });

  test('serves no DERP: an upgrade is sent to HTTPS like all else', async () => {
    const answer = await raw(
      await serve(),
      'GET /derp HTTP/1.1\r\nHost: h\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 302 Found\r\n(?:.*\r\n)*Location: https:\/\/h\/derp\r\n/);
  });

  test('survives what is no HTTP, and a TLS handshake', async () => {
    const port = await serve();
    for (const bytes of [
      '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
      'hello\r\n\r\n',
      'CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n',
    ]) {
      await raw(port, bytes);
    }
    expect((await ask(port, '/generate_204')).status).toBe(204);
  });
});

describe('debug pages', () => {
  test('are served here too', async () => {
    const port = await serve();
    expect((await ask(port, '/debug/varz', 'GET', HOST)).body).toBe('debug page');
    expect((await ask(port, '/debug', 'GET', HOST)).headers.location).toBe('/debug/');
  });

  test('are where those who may see them are sent from /', async () => {
    const port = await serve({ access: () => true });
    expect((await ask(port, '/', 'GET', HOST)).headers.location).toBe('https://derp.example.com/debug/');
    expect((await ask(port, '/x', 'GET', HOST)).headers.location).toBe('https://derp.example.com/x');
  });
});

describe('an ACME validation', () => {
  const challenge = (request: IncomingMessage, response: ServerResponse) => {
    if (request.url?.startsWith('/.well-known/acme-challenge/') !== true) return false;
    response.end('token');
    return true;
  };

  test('is answered before anything is sent to HTTPS', async () => {
    const port = await serve({ challenge });
    expect((await ask(port, '/.well-known/acme-challenge/x', 'GET', HOST)).body).toBe('token');
    expect((await ask(port, '/x', 'GET', HOST)).status).toBe(302);
    expect((await ask(port, '/generate_204', 'GET', HOST)).status).toBe(204);
  });

  test('is a request like any other where there are none', async () => {
    expect((await ask(await serve(), '/.well-known/acme-challenge/x', 'GET', HOST)).status).toBe(302);
  });
});
