import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { createPageServer, debugPages } from 'derplane';
import { describe, expect, test } from 'vitest';
import type { DebugPagesOptions } from '../dist/http/debug_pages.js';
import { ask, end, listen, withMetrics } from './support/debug_server.js';
import { withRelay } from './support/relay.js';

const POLICY =
  "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; block-all-mixed-content; object-src 'none'";

/** Runs `body` with the port of an ordinary page server that has debug pages. */
async function withPages(options: DebugPagesOptions, body: (port: number) => Promise<void>): Promise<void> {
  const server = createPageServer({ debug: debugPages(options) });
  const port = await listen(server);
  try {
    await body(port);
  } finally {
    await end(server);
  }
}

const PATHS = ['/debug/', '/debug/vars', '/debug/varz', '/debug/check', '/debug/traffic', '/debug/clients/'];

describe('debug pages', () => {
  test('an index shows what an operator looks for first, and links to the others', () =>
    withRelay({ shards: 1, mesh: { key: 'ab'.repeat(32) } }, ({ server }) =>
      withPages({ relay: server, hostname: '<derp>.example', version: '9.8.7' }, async (port) => {
        const { status, headers, body } = await ask(port, '/debug/');
        expect(status).toBe(200);
        expect(headers['content-security-policy']).toBe(POLICY);
        expect(body).toMatch(/<b>Uptime:<\/b> (\d+h)?(\d+m)?\d+s/);
        expect(body).toContain('<b>Version:</b> 9.8.7');
        expect(body).toMatch(/<b>Machine:<\/b> \S+/);
        expect(body).toContain('<b>TLS hostname:</b> &#60;derp&#62;.example');
        expect(body).toContain('<b>Mesh key:</b> true');
        const links = [...body.matchAll(/href="([^"]+)"/g)].map(([, link]) => link);
        expect(links).toEqual(PATHS.slice(1));
      }),
    ));

  test('/debug leads to the index', () =>
    withPages({}, async (port) => {
      const { status, headers } = await ask(port, '/debug');
      expect([status, headers.location]).toEqual([307, '/debug/']);
    }));

  test('may hold styles, and carry the headers of all pages', () =>
    withRelay({ shards: 1 }, ({ server }) =>
      withPages({ relay: server }, async (port) => {
        for (const path of ['/debug/vars', '/debug/varz', '/debug/check']) {
          const { headers } = await ask(port, path);
          expect(headers).toMatchObject({
            'content-security-policy': `${POLICY}; style-src 'self' 'unsafe-inline'`,
            'strict-transport-security': 'max-age=63072000; includeSubDomains',
            'x-frame-options': 'DENY',
            'x-content-type-options': 'nosniff',
          });
        }
      }),
    ));

  test('without a relay there is nothing to check and no traffic', () =>
    withPages({}, async (port) => {
      expect((await ask(port, '/debug/check')).status).toBe(404);
      expect((await ask(port, '/debug/traffic')).status).toBe(404);
      expect((await ask(port, '/debug/')).body).not.toContain('/debug/check');
      const { body } = await ask(port, '/debug/varz');
      expect(body).toMatch(/^uptime_sec \d+$/m);
      expect(body).not.toMatch(/^derp_/m);
      expect(JSON.parse((await ask(port, '/debug/vars')).body)).toMatchObject({
        derp: { version: expect.any(String) },
      });
    }));

  test.each(['/debug/pprof/', '/debug/x', '/debug/vars/'])('%s is not found', (path) =>
    withPages({}, async (port) => {
      const { status, body, headers } = await ask(port, path);
      expect([status, body]).toEqual([404, '404 page not found\n']);
      expect(headers['content-security-policy']).toBeUndefined();
    }),
  );

  test('any method is served', () =>
    withRelay({ shards: 1 }, ({ server }) =>
      withPages({ relay: server }, async (port) => {
        for (const path of PATHS) {
          if (path !== '/debug/traffic') expect((await ask(port, path, 'POST')).status).toBe(200);
          expect(await ask(port, path, 'HEAD')).toMatchObject({ status: 200, body: '' });
        }
      }),
    ));

  test('whoever may not see them gets 403, whatever the path', () =>
    withPages({ access: () => false }, async (port) => {
      for (const path of [...PATHS, '/debug/x']) {
        const { status, body, headers } = await ask(port, path);
        expect([status, body]).toEqual([403, 'debug access denied\n']);
        expect(headers['content-security-policy']).toBeUndefined();
      }
    }));

  test('a forwarded request gets 403', () =>
    withPages({}, async (port) => {
      expect((await ask(port, '/debug/varz', 'GET', { 'X-Forwarded-For': '127.0.0.1' })).status).toBe(403);
      expect((await ask(port, '/debug/varz')).status).toBe(200);
    }));

  test('are those of the relay that listens itself, too', () =>
    withRelay({ shards: 1 }, async ({ server }) => {
      const httpServer = createPageServer({ debug: debugPages({ relay: server }) });
      const listener = await server.listen({ host: '127.0.0.1', port: 0, httpServer });
      expect((await ask(listener.port, '/debug/check')).status).toBe(200);
      httpServer.closeAllConnections();
    }));
});

describe('/debug/check', () => {
  test('says that all is well', () =>
    withRelay({ shards: 2 }, ({ server }) =>
      withPages({ relay: server }, async (port) => {
        const { status, body, headers } = await ask(port, '/debug/check');
        expect([status, body]).toEqual([200, 'derp.Server ConsistencyCheck okay']);
        expect(headers['content-type']).toBe('text/plain; charset=utf-8');
      }),
    ));

  test('says with 500 what is wrong', () =>
    withRelay({ shards: 1 }, ({ server }) => {
      const relay = Object.create(server, {
        consistencyCheck: { value: () => Promise.reject(new Error('shard 0: 2 and 2 are 5')) },
        expVar: { value: () => server.expVar() },
        hasMeshKey: { value: false },
      });
      return withPages({ relay }, async (port) => {
        const { status, body } = await ask(port, '/debug/check');
        expect(status).toBe(500);
        expect(body).toContain('shard 0: 2 and 2 are 5');
      });
    }));
});

/** Answers with the lines of the next round, without the empty line that ends it. */
class Rounds {
  readonly #response: IncomingMessage;
  #text = '';

  constructor(response: IncomingMessage) {
    this.#response = response;
    response.setEncoding('utf8');
  }

  static async open(port: number): Promise<Rounds> {
    const [response] = (await once(
      get({ port, host: '127.0.0.1', path: '/debug/traffic', agent: false }),
      'response',
    )) as [IncomingMessage];
    return new Rounds(response);
  }

  async next(): Promise<Record<string, unknown>[]> {
    for (;;) {
      const round = this.#text.match(/^(?:\{.*\}\n)*\n/)?.[0];
      if (round !== undefined) {
        this.#text = this.#text.slice(round.length);
        return round.trim() === ''
          ? []
          : round
              .trim()
              .split('\n')
              .map((line) => JSON.parse(line));
      }
      const chunk = this.#response.read() as string | null;
      if (chunk === null) await once(this.#response, 'readable');
      else this.#text += chunk;
    }
  }

  close(): void {
    this.#response.destroy();
  }
}

describe('/debug/traffic', () => {
  test.each([1, 2])(
    'shows every connection that moved bytes, at %d shards, then only those that moved more',
    (shards) =>
      withRelay({ shards }, (relay) =>
        withPages({ relay: relay.server, senderCardinality: true }, async (port) => {
          const [a, b] = await relay.pair(shards === 1 ? 'on one shard' : 'across shards');
          const idle = await relay.connect();
          await a.send(b.publicKey, Buffer.alloc(1000));
          await b.nextFrame();
          const rounds = await Rounds.open(port);
          const first = await rounds.next();
          const of = (lines: Record<string, unknown>[], key: string) => lines.find((line) => line['Key'] === key);
          const received = of(first, b.publicKey.toString());
          expect(received).toEqual({
            Sent: expect.any(Number),
            Recv: expect.any(Number),
            Key: b.publicKey.toString(),
            UniqueSenders: 1,
          });
          expect(Object.keys(received!)).toEqual(['Sent', 'Recv', 'Key', 'UniqueSenders']);
          expect(received!['Sent']).toBeGreaterThan(1000);
          expect(of(first, a.publicKey.toString())!['Recv']).toBeGreaterThan(1000);
          expect(of(first, a.publicKey.toString())).not.toHaveProperty('UniqueSenders');
          expect(of(first, idle.publicKey.toString())).toBeDefined();

          await a.send(b.publicKey, Buffer.alloc(500));
          await b.nextFrame();
          let second = await rounds.next();
          while (second.length === 0) second = await rounds.next();
          expect(second.map((line) => line['Key']).sort()).toEqual(
            [a.publicKey.toString(), b.publicKey.toString()].sort(),
          );
          expect(of(second, b.publicKey.toString())!['Sent']).toBe((received!['Sent'] as number) + 500 + 32 + 5);
          rounds.close();
        }),
      ),
  );

  test('is for a few at a time', () =>
    withRelay({ shards: 1 }, ({ server }) =>
      withPages({ relay: server }, async (port) => {
        const open = await Promise.all(Array.from({ length: 16 }, () => Rounds.open(port)));
        await Promise.all(open.map((rounds) => rounds.next()));
        expect((await ask(port, '/debug/traffic')).status).toBe(503);
        for (const rounds of open) rounds.close();
        // The relay hears of a page's end when its connection closes.
        for (;;) {
          const response = await Rounds.open(port);
          const status = await ask(port, '/debug/traffic', 'HEAD').then((answer) => answer.status);
          response.close();
          if (status === 200) break;
        }
      }),
    ));

  test('ends when the relay closes', () =>
    withRelay({ shards: 1 }, async ({ server }) => {
      const { Server, PrivateKey } = await import('derplane');
      const other = new Server(PrivateKey.generate(), { shards: 1, handshake: { threads: 1 } });
      await withPages({ relay: other }, async (port) => {
        const answer = ask(port, '/debug/traffic');
        await once(get({ port, host: '127.0.0.1', path: '/debug/', agent: false }), 'response');
        await other.close();
        expect((await answer).body).toContain('the relay is closed');
      });
      await server.consistencyCheck();
    }));
});

describe('a metrics server', () => {
  test('serves what is below /debug/, the index at /, the figures at /metrics, and nothing else', () =>
    withRelay({ shards: 1 }, ({ server }) =>
      withMetrics({ relay: server }, async (port) => {
        expect((await ask(port, '/metrics')).body).toMatch(/^derp_accepts \d+$/m);
        expect((await ask(port, '/metrics')).headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/);
        expect((await ask(port, '/')).body).toContain('/debug/varz');
        expect((await ask(port, '/debug/check')).status).toBe(200);
        for (const path of ['/derp', '/derp/probe', '/generate_204', '/x'])
          expect((await ask(port, path)).status).toBe(404);
      }),
    ));

  test('lets in who reaches it, except through a proxy', () =>
    withMetrics({ host: '127.0.0.1' }, async (port) => {
      expect((await ask(port, '/metrics')).status).toBe(200);
      expect((await ask(port, '/metrics', 'GET', { 'X-Forwarded-For': '192.0.2.1' })).status).toBe(403);
    }));
});
