import { setImmediate } from 'node:timers/promises';
import { BootstrapDns, createPageServer, debugPages, type NameResolver } from 'derplane';
import { describe, expect, test } from 'vitest';
import { firstFloat, isInRollout } from '../dist/http/bootstrap_rollout.js';
import { ask, end, listen } from './support/debug_server.js';

/** Answers from a table; a name that it lacks fails, a promise as value is waited for. */
class TableResolver implements NameResolver {
  readonly asked: string[] = [];
  readonly #table: Record<string, string[] | Promise<string[]>>;

  constructor(table: Record<string, string[] | Promise<string[]>>) {
    this.#table = table;
  }

  async addresses(name: string): Promise<string[]> {
    this.asked.push(name);
    const found = this.#table[name];
    if (found === undefined) throw new Error(`getaddrinfo ENOTFOUND ${name}`);
    return found;
  }

  texts(name: string): Promise<string[]> {
    return this.addresses(name);
  }
}

interface Setup {
  names?: string;
  unpublishedNames?: string;
  table?: Record<string, string[] | Promise<string[]>>;
  lines?: string[];
}

/** Runs `body` with a page server's port, as soon as every name was asked for. */
async function withNames(setup: Setup, body: (port: number, dns: BootstrapDns) => Promise<void>): Promise<void> {
  const { table = {}, lines = [], ...names } = setup;
  const line = (_fields: object, message: string) => void lines.push(message);
  const logger = { debug: line, info: line, warn: line, error: line };
  const dns = new BootstrapDns({ ...names, resolver: new TableResolver(table), logger });
  const access = () => true;
  const server = createPageServer({ bootstrapDns: dns, debug: debugPages({ bootstrapDns: dns, access }) });
  const port = await listen(server);
  dns.start();
  try {
    await body(port, dns);
  } finally {
    dns.close();
    await end(server);
  }
}

/** The answer once it is `expected`: lookups end when they end. */
async function answerIs(port: number, path: string, expected: unknown): Promise<void> {
  await expect
    .poll(async () => JSON.parse((await ask(port, path)).body || '"empty"') as unknown, { timeout: 20_000 })
    .toEqual(expected);
}

describe('/bootstrap-dns', () => {
  test('without names is 200, JSON, empty, and closes the connection', async () => {
    const server = createPageServer();
    const port = await listen(server);
    try {
      const { status, headers, body } = await ask(port, '/bootstrap-dns?q=x');
      expect([status, body]).toEqual([200, '']);
      expect(headers).toMatchObject({
        'content-type': 'application/json',
        connection: 'close',
        'strict-transport-security': 'max-age=63072000; includeSubDomains',
      });
    } finally {
      await end(server);
    }
  });

  test('is empty until the first lookup has ended', async () => {
    let answer = (_: string[]): void => {};
    const pending = new Promise<string[]>((resolve) => {
      answer = resolve;
    });
    await withNames({ names: 'a.example', table: { 'a.example': pending } }, async (port) => {
      expect((await ask(port, '/bootstrap-dns')).body).toBe('');
      answer(['192.0.2.1']);
      await answerIs(port, '/bootstrap-dns', { 'a.example': ['192.0.2.1'] });
    });
  });

  test('answers all published names, sorted and tab-indented, whatever is asked for', () =>
    withNames(
      { names: 'b.example,a.example', table: { 'a.example': ['192.0.2.1'], 'b.example': ['2001:db8::1'] } },
      async (port) => {
        const published = { 'a.example': ['192.0.2.1'], 'b.example': ['2001:db8::1'] };
        await answerIs(port, '/bootstrap-dns', published);
        for (const query of ['', '?q=', '?q=a.example', '?q=unknown.example', '?x=1']) {
          expect((await ask(port, `/bootstrap-dns${query}`)).body).toBe(JSON.stringify(published, null, '\t'));
        }
      },
    ));

  test('a name that fails is left out and logged; the others are answered', () => {
    const lines: string[] = [];
    const table = { 'a.example': ['192.0.2.1'] };
    return withNames({ names: 'missing.example,a.example, b.example', table, lines }, async (port) => {
      await answerIs(port, '/bootstrap-dns', { 'a.example': ['192.0.2.1'] });
      expect(lines).toEqual([
        'bootstrap DNS lookup "missing.example": getaddrinfo ENOTFOUND missing.example',
        'bootstrap DNS lookup " b.example": getaddrinfo ENOTFOUND  b.example',
      ]);
    });
  });

  test('is null when every name fails', () =>
    withNames({ names: 'missing.example' }, (port) => answerIs(port, '/bootstrap-dns', null)));

  test('uses at most 256 addresses of a name', () => {
    const many = Array.from({ length: 10_000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`);
    const lines: string[] = [];
    return withNames({ names: 'many.example', table: { 'many.example': many }, lines }, async (port) => {
      await expect.poll(async () => (await ask(port, '/bootstrap-dns')).body, { timeout: 20_000 }).not.toBe('');
      const { 'many.example': found } = JSON.parse((await ask(port, '/bootstrap-dns')).body) as Record<
        string,
        string[]
      >;
      expect(found?.toSorted()).toEqual(many.slice(0, 256).toSorted());
      expect(lines).toEqual(['bootstrap DNS lookup "many.example": 10000 addresses, using 256']);
    });
  });

  test('closing while a lookup hangs ends it without a log line', async () => {
    const lines: string[] = [];
    const hung = new Promise<string[]>(() => {});
    await withNames({ names: 'hung.example', table: { 'hung.example': hung }, lines }, async (port) => {
      expect((await ask(port, '/bootstrap-dns')).body).toBe('');
    });
    await setImmediate();
    expect(lines).toEqual([]);
  });
});

describe('unpublished names', () => {
  const table = {
    'public.example': ['192.0.2.1'],
    'all.example': ['192.0.2.2'],
    'none.example': ['192.0.2.3'],
    'bad.example': ['192.0.2.4'],
    'full.example': ['192.0.2.5'],
    'none.txt': ['0'],
    'bad.txt': ['101', '-1', '2.5', 'x', ''],
    'full.txt': ['7', '100', 'x'],
  };
  const unpublishedNames =
    'all.example,none.example/none.txt,bad.example/bad.txt,full.example/full.txt,lost.example/lost.txt';
  const published = { 'public.example': ['192.0.2.1'] };

  test('are answered alone, when asked for and admitted; else the published ones are', () =>
    withNames({ names: 'public.example', unpublishedNames, table }, async (port, dns) => {
      await answerIs(port, '/bootstrap-dns?q=full.example', { 'full.example': ['192.0.2.5'] });
      const answers: [query: string, expected: object][] = [
        ['q=all.example', { 'all.example': ['192.0.2.2'] }],
        ['q=all%2Eexample&q=x', { 'all.example': ['192.0.2.2'] }],
        ['q=x&q=all.example', published],
        ['q=ALL.example', published],
        ['q=none.example', published],
        ['q=bad.example', published],
        ['q=lost.example', published],
        ['', published],
      ];
      const before = dns.counts();
      for (const [query, expected] of answers) {
        expect(JSON.parse((await ask(port, `/bootstrap-dns?${query}`)).body)).toEqual(expected);
      }
      const after = dns.counts();
      const grown = Object.fromEntries(
        Object.entries(after).map(([name, value]) => [name, value - before[name as keyof typeof before]]),
      );
      expect(grown).toMatchObject({
        requests: 8,
        published_hits: 0,
        published_misses: 0,
        unpublished_hits: 4,
        unpublished_percent_misses: 2,
        unpublished_misses: 5,
      });
    }));

  test('are metrics by the names of derper', () =>
    withNames({ names: 'public.example', unpublishedNames, table }, async (port) => {
      await answerIs(port, '/bootstrap-dns', published);
      await ask(port, '/bootstrap-dns?q=public.example');
      const vars = JSON.parse((await ask(port, '/debug/vars')).body) as Record<string, number>;
      expect(vars).toMatchObject({
        counter_bootstrap_dns_published_hits: 1,
        counter_bootstrap_dns_published_misses: 0,
        counter_bootstrap_dns_queried_domains: 1,
        counter_bootstrap_dns_unpublished_hits: 0,
        counter_bootstrap_dns_unpublished_misses: 0,
        counter_bootstrap_dns_unpublished_percent_misses: 0,
      });
      const varz = (await ask(port, '/debug/varz')).body;
      expect(varz).toContain('# TYPE bootstrap_dns_requests counter');
      expect(varz).toMatch(/^bootstrap_dns_published_hits 1$/m);
    }));

  test('at most 500 names that were asked for are remembered', () =>
    withNames({}, async (port, dns) => {
      for (let i = 0; i < 500; i++) await ask(port, `/bootstrap-dns?q=${i}`);
      expect(dns.counts().queried_domains).toBe(500);
      await ask(port, '/bootstrap-dns?q=one-more');
      expect(dns.counts().queried_domains).toBe(0);
    }));
});

describe('a rollout', () => {
  test.each(['192.0.2.1', '2001:db8::1'])('of 0 and of 100 percent does not depend on the address %s', (address) => {
    expect([isInRollout(address, 0), isInRollout(address, 100)]).toEqual([false, true]);
  });

  // By Go: rand.New(rand.NewPCG(LittleEndian.Uint64(a[:8]), LittleEndian.Uint64(a[8:]))).Float64() with a = addr.As16().
  test.each([
    ['192.0.2.1', 0.9412444256107486],
    ['198.51.100.77', 0.23123373544677184],
    ['8.8.8.8', 0.35032690643351905],
    ['100.64.0.1', 0.1326417960005104],
    ['2001:db8::1', 0.17365074425987426],
    ['2a00:1450:4001:82b::200e', 0.7564541097137958],
    ['fd7a:115c:a1e0::1', 0.599420438188912],
    ['::ffff:203.0.113.9', 0.5882351435208344],
    ['fe80::1', 0.33767084875785625],
  ] as const)('gives %s the number %s, as Go does', (address, float) => {
    expect(isInRollout(address, Math.floor(float * 100))).toBe(false);
    expect(isInRollout(address, Math.ceil(float * 100))).toBe(true);
  });

  test('takes the generator of Go', () => {
    expect(firstFloat(1n, 2n)).toBe(0.6764556596678251);
  });

  test.each(['127.0.0.1', '127.9.9.9', '::1'])('is a coin toss for %s', (address) => {
    expect(isInRollout(address, 1, () => 0.49)).toBe(true);
    expect(isInRollout(address, 99, () => 0.5)).toBe(false);
  });

  test.each(['', 'x', '1.2.3'])('does not admit who has no address: %j', (address) => {
    expect(isInRollout(address, 99)).toBe(false);
  });
});
