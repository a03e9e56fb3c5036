import { once } from 'node:events';
import { type IncomingMessage, request, type Server } from 'node:http';
import { type AddressInfo, connect, createServer, Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createPageServer } from '../dist/http/page_server.js';
import type { PagesOptions } from '../dist/http/pages.js';

let server: Server | undefined;

afterEach(async () => {
  if (!server) return;
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  server = undefined;
  await closed;
});

async function serve(options: PagesOptions = {}): Promise<number> {
  server = createPageServer(options);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

interface Answer {
  status: number | undefined;
  headers: IncomingMessage['headers'];
  body: string;
}

async function ask(port: number, path: string, method = 'GET', headers: Record<string, string> = {}): Promise<Answer> {
  const asked = request({ host: '127.0.0.1', port, path, method, headers, agent: false });
  asked.end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

/** Sends raw bytes, returns all that comes until the relay closes. */
async function raw(port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.write(bytes);
  return text(socket);
}

const PLAIN = 'text/plain; charset=utf-8';
const HTML = 'text/html; charset=utf-8';
const SECURITY = {
  'strict-transport-security': 'max-age=63072000; includeSubDomains',
  'x-frame-options': 'DENY',
  'x-content-type-options': 'nosniff',
  'content-security-policy':
    "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; block-all-mixed-content; object-src 'none'",
};

describe('/derp', () => {
  test.each(['GET', 'HEAD', 'POST', 'OPTIONS'])('%s without an upgrade is 426', async (method) => {
    const { status, headers, body } = await ask(await serve(), '/derp', method);
    expect(status).toBe(426);
    expect(headers).toMatchObject({ 'content-type': PLAIN, 'x-content-type-options': 'nosniff' });
    expect(headers).not.toHaveProperty('strict-transport-security');
    expect(body).toBe(method === 'HEAD' ? '' : 'DERP requires connection upgrade\n');
  });

  test('another upgrade is 426 and logged without its control characters or length', async () => {
    const lines: string[] = [];
    const log = (_fields: object, message: string) => void lines.push(message);
    const port = await serve({ logger: { debug: log, info: log, warn: log, error: log } });
    const headers = { Connection: 'Upgrade', Upgrade: 'h2c"'.padEnd(200, 'x') };
    expect((await ask(port, '/derp', 'GET', headers)).status).toBe(426);
    expect(lines).toEqual([`Weird upgrade: ${JSON.stringify('h2c"'.padEnd(64, 'x'))}`]);
  });

  test('query strings do not matter', async () => {
    expect((await ask(await serve(), '/derp?x=1')).status).toBe(426);
  });

  test('escapes in the path do not matter', async () => {
    expect((await ask(await serve(), '/%64erp')).status).toBe(426);
  });

  test('is 404 where DERP is disabled', async () => {
    const { status, body } = await ask(await serve({ derpEnabled: false }), '/derp');
    expect({ status, body }).toEqual({ status: 404, body: 'derp server disabled\n' });
  });
});

describe.each(['/derp/probe', '/derp/latency-check'])('%s', (path) => {
  test.each(['GET', 'HEAD'])('%s is 200, empty and readable from any origin', async (method) => {
    const { status, headers, body } = await ask(await serve(), path, method);
    expect({ status, body }).toEqual({ status: 200, body: '' });
    expect(headers['access-control-allow-origin']).toBe('*');
    expect(headers).not.toHaveProperty('content-security-policy');
  });

  test.each(['POST', 'OPTIONS', 'DELETE'])('%s is 405', async (method) => {
    const { status, headers, body } = await ask(await serve(), path, method);
    expect({ status, body, allow: headers.allow }).toEqual({
      status: 405,
      body: 'bogus probe method\n',
      allow: 'GET, HEAD',
    });
  });
});

describe('/generate_204', () => {
  test('is 204 and never cached', async () => {
    const { status, headers, body } = await ask(await serve(), '/generate_204');
    expect({ status, body }).toEqual({ status: 204, body: '' });
    expect(headers['cache-control']).toBe('no-cache, no-store, must-revalidate, no-transform, max-age=0');
    expect(headers).not.toHaveProperty('x-tailscale-response');
    expect(headers).not.toHaveProperty('strict-transport-security');
  });

  test.each(['ts_derp1.example.com', 'a', 'A:b.c-d_9', 'x'.repeat(64)])(
    'answers the challenge %s',
    async (challenge) => {
      const { headers } = await ask(await serve(), '/generate_204', 'GET', { 'X-Tailscale-Challenge': challenge });
      expect(headers['x-tailscale-response']).toBe(`response ${challenge}`);
    },
  );

  test.each(['', 'a b', '<script>', 'x'.repeat(65), 'ü'])('does not echo the bad challenge %j', async (challenge) => {
    const { status, headers } = await ask(await serve(), '/generate_204', 'GET', {
      'X-Tailscale-Challenge': challenge,
    });
    expect(status).toBe(204);
    expect(headers).not.toHaveProperty('x-tailscale-response');
  });
});

describe('pages', () => {
  test('robots are sent away', async () => {
    const { status, headers, body } = await ask(await serve(), '/robots.txt');
    expect({ status, body }).toEqual({ status: 200, body: 'User-agent: *\nDisallow: /\n' });
    expect(headers).toMatchObject({ ...SECURITY, 'content-type': PLAIN });
  });

  test.each(['/', '/unknown', '/derp/other', '/a/b'])('%s is the home page', async (path) => {
    const { status, headers, body } = await ask(await serve(), path);
    expect(status).toBe(200);
    expect(headers).toMatchObject({ ...SECURITY, 'content-type': HTML });
    expect(body).toContain('<h1>DERP</h1>');
    expect(body).toContain('DERP server');
    expect(body).not.toContain('disabled');
  });

  test('HEAD has the headers and length of GET', async () => {
    const port = await serve();
    const get = await ask(port, '/');
    const head = await ask(port, '/', 'HEAD');
    expect(head.body).toBe('');
    expect({ ...head.headers, date: '' }).toEqual({ ...get.headers, date: '' });
    expect(Number(head.headers['content-length'])).toBe(get.body.length);
  });

  test.each(['/', '/robots.txt', '/unknown'])('%s answers any method', async (path) => {
    const port = await serve();
    const { body } = await ask(port, path);
    for (const method of ['POST', 'OPTIONS', 'DELETE', 'PROPFIND']) {
      expect(await ask(port, path, method)).toMatchObject({ status: 200, body, headers: SECURITY });
    }
  });

  test('the home page says that DERP is disabled', async () => {
    expect((await ask(await serve({ derpEnabled: false }), '/')).body).toContain('disabled');
  });

  test('a blank home page is an empty HTML page', async () => {
    const { status, headers, body } = await ask(await serve({ home: 'blank' }), '/unknown');
    expect({ status, body, type: headers['content-type'] }).toEqual({ status: 200, body: '', type: HTML });
  });

  test('a URL as home page is a redirect', async () => {
    const port = await serve({ home: 'https://example.com/?a=1&b' });
    for (const path of ['/', '/unknown']) {
      const { status, headers, body } = await ask(port, path);
      expect({ status, location: headers.location }).toEqual({ status: 302, location: 'https://example.com/?a=1&b' });
      expect(headers).toMatchObject(SECURITY);
      expect(body).not.toContain('&b"');
    }
    expect((await ask(port, '/derp/probe')).status).toBe(200);
    expect((await ask(port, '/', 'POST')).status).toBe(302);
  });

  test.each(['example.com', 'ftp://example.com', 'https://', 'javascript:alert(1)', 'Blank'])(
    'home page %s is refused',
    (home) => {
      expect(() => createPageServer({ home })).toThrow(
        expect.objectContaining({
          code: 'ERR_DERP_BAD_OPTION',
          message: expect.stringContaining('unknown --home value'),
        }),
      );
    },
  );

  test('what lies below /debug/ is not found', async () => {
    const { status, body, headers } = await ask(await serve(), '/debug/vars');
    expect({ status, body }).toEqual({ status: 404, body: '404 page not found\n' });
    expect(headers).not.toHaveProperty('strict-transport-security');
  });
});

describe('unclean paths', () => {
  test.each([
    ['/derp/../x', '/x'],
    ['//evil.example/..', '/'],
    ['//evil.example', '/evil.example'],
    ['/a//b/./c/?q=1//2', '/a/b/c/?q=1//2'],
    ['/debug', '/debug/'],
    ['/./\\evil.example', '/%5Cevil.example'],
  ])('%s leads to %s', async (path, location) => {
    const answer = await raw(await serve(), `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 307 Temporary Redirect\r\n/);
    expect(answer).toContain(`\r\nLocation: ${location}\r\n`);
  });

  test.each(['/%zz', '*', 'x'])('the target %s is a bad request', async (path) => {
    const answer = await raw(await serve(), `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('a target in absolute form is understood', async () => {
    const answer = await raw(
      await serve(),
      'HEAD http://x/derp/probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  });
});

describe('connections', () => {
  test('HTTP/1.0 is served', async () => {
    expect(await raw(await serve(), 'GET /derp/probe HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
  });

  test('several requests share a connection', async () => {
    const one = 'GET /generate_204 HTTP/1.1\r\nHost: x\r\n';
    const answers = await raw(await serve(), `${one}\r\n${one}Connection: close\r\n\r\n`);
    expect(answers.match(/HTTP\/1\.1 204/g)).toHaveLength(2);
  });

  test('a request with a long body is the last of its connection, and answered at once', async () => {
    const answer = await raw(
      await serve(),
      'POST /generate_204 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 204 [\s\S]*\r\nConnection: close\r\n/);
  });

  test('a head over 8 KiB is 431', async () => {
    const answer = await raw(await serve(), `GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(9_000)}\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 431 /);
  });

  test('garbage is 400', async () => {
    expect(await raw(await serve(), '\0\x01garbage\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('a connection has 30 s for a request, and 30 s more after each answer', async () => {
    const port = await serve();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const client = connect(port, '127.0.0.1');
      const ask = async () => {
        client.write('GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n');
        await once(client, 'data');
      };
      await ask();
      vi.advanceTimersByTime(29_000);
      await ask();
      vi.advanceTimersByTime(29_000);
      await ask();
      // A reset, for these bytes are not read any more.
      const ended = new Promise((resolve) => client.once('error', resolve).once('close', resolve));
      client.write('GET /derp/pro');
      vi.advanceTimersByTime(31_000);
      await ended;
    } finally {
      vi.useRealTimers();
    }
  });

  test('an upgrade that is none to DERP gets its page, whoever waits for upgrades', async () => {
    const port = await serve();
    const seen: string[] = [];
    server!.on('upgrade', (request, socket) => {
      seen.push(request.url!);
      socket.end('HTTP/1.1 101 Switching Protocols\r\n\r\n');
    });
    const upgrade = (path: string, protocol: string) =>
      raw(port, `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: ${protocol}\r\n\r\n`);
    expect(await upgrade('/generate_204', 'h2c')).toMatch(/^HTTP\/1\.1 204 [\s\S]*\r\nConnection: close\r\n/);
    expect(await upgrade('/', 'derp')).toContain('<h1>DERP</h1>');
    expect(await upgrade('/derp', 'h2c')).toMatch(/^HTTP\/1\.1 426 /);
    expect(await upgrade('/derp?x', 'DERP')).toMatch(/^HTTP\/1\.1 101 /);
    expect(await upgrade('/derp', 'WebSocket')).toMatch(/^HTTP\/1\.1 101 /);
    expect(seen).toEqual(['/derp?x', '/derp']);
  });

  test('a client that resets its connection after an upgrade harms nobody', async () => {
    const port = await serve();
    server!.on('upgrade', () => {});
    for (let round = 0; round < 50; round++) {
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n');
      if (round % 2 === 0) await once(socket, 'data');
      socket.resetAndDestroy();
    }
    expect((await ask(port, '/generate_204')).status).toBe(204);
  });

  test('a server that does not listen serves the connections that it is given, and ends them when told', async () => {
    const pages = createPageServer();
    const front = createServer((socket) => pages.emit('connection', socket)).listen(0, '127.0.0.1');
    await once(front, 'listening');
    const { port } = front.address() as AddressInfo;
    const client = new Socket().connect(port, '127.0.0.1');
    client.write('GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n');
    const [answer] = (await once(client, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
    const closed = once(client, 'close');
    pages.closeAllConnections();
    await closed;
    front.close();
    await once(front, 'close');
  });
});
