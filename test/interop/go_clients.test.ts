/** /debug/clients/ side by side with derper's: the same clients, the same questions, the same answers. */
import { createPageServer, debugPages, PrivateKey, RelayClient } from 'derplane';
import { describe, expect, test } from 'vitest';
import { GO_DERPER_TIMEOUT, newestDerperMissing, startGoDerper } from '../support/go_derper.js';
import { withRelay } from '../support/relay.js';

const KEYS = Array.from({ length: 3 }, () => PrivateKey.generate());

/** Connects and sends the same everywhere, one after another, so that connection numbers are equal. */
async function populate(port: number): Promise<RelayClient[]> {
  const [a, b, c] = KEYS as [PrivateKey, PrivateKey, PrivateKey];
  const url = `http://127.0.0.1:${port}/derp`;
  const clients = [
    new RelayClient(a, url, { appName: 'app one' }),
    new RelayClient(b, url, { isProber: true }),
    new RelayClient(c, url, { appName: '<b>&"' }),
    new RelayClient(c, url),
  ];
  for (const client of clients) await client.connect();
  const [first, second] = clients as [RelayClient, RelayClient];
  await second.notePreferred(true);
  await first.send(b.publicKey, Buffer.alloc(1200));
  await first.send(b.publicKey, Buffer.alloc(100));
  for (let n = 0; n < 2; ) if ((await second.recv()).type === 'packet') n++;
  await second.send(a.publicKey, Buffer.alloc(10));
  while ((await first.recv()).type !== 'packet');
  return clients;
}

const FILTERS = ['', 'all', 'ip=127.0.0.1', 'ip=::ffff:127.0.0.1', 'ip=2001:DB8:0::1', 'ip=fe80::1%25eth0', 'ip=x']
  .concat([
    'cidr=127.9.9.9/8',
    'cidr=::/0',
    'cidr=::ffff:127.0.0.0/104',
    'cidr=2001:db8::1/32',
    'cidr=x',
    'cidr=1.2.3.4/33',
  ])
  .concat([
    'cidr=1.2.3.4/08',
    'cidr=zz/10',
    'cidr=fe80::%25a/10',
    'key=x',
    'key=nodekey:12',
    `key=nodekey:${'z'.repeat(64)}`,
  ])
  .concat([`key=${KEYS[0]!.publicKey}`, `key=${KEYS[2]!.publicKey}`, `key=nodekey:${'AB'.repeat(32)}`])
  .concat([
    'app=',
    'app=app+one',
    'app=a*b~c',
    'app=%zz',
    'app=%c3%a4',
    'app=&app=app%20one',
    'ip=127.0.0.1&app=app+one',
  ])
  .concat(['ip=x&cidr=y', 'ip=1.2.3.4&cidr=y', 'ip=1.2.3.4&all', 'all&key=', 'all;x=1', 'all=&ip=']);

const ORDERS = ['key', 'ip', 'conn', 'connected', 'rx', 'tx', 'rxpkts', 'txpkts'].flatMap((sort) => [
  `sort=${sort}`,
  `sort=-${sort}`,
]);

const PAGES = [
  'limit=1',
  'limit=0',
  'limit=-1',
  'limit=%2B2',
  'limit=007',
  'limit=0x2',
  'limit=5000',
  `limit=${'9'.repeat(20)}`,
]
  .concat([
    'sort=zz',
    'sort=--key',
    'sort=-',
    'sort=',
    'sort=zz&limit=x&after=zz',
    'after=zz&afterconn=u',
    'after=&afterconn=1',
  ])
  .concat(['sort=conn&after=2&afterconn=zz', 'sort=-conn&after=3', 'sort=conn&after=-1', 'sort=rx&after=-1'])
  .concat(['sort=rx&after=0', 'sort=rx&after=0&afterconn=3&limit=1', `sort=rx&after=${'9'.repeat(20)}`])
  .concat([
    'sort=ip&after=127.0.0.1',
    'sort=-ip&after=127.0.0.1',
    'sort=ip&after=[::1]:5',
    'sort=ip&after=1.2.3.4:99999',
  ])
  .concat([
    'sort=connected&after=1h',
    'sort=-connected&after=1h',
    'sort=connected&after=-1',
    'sort=connected&after=-1h',
  ])
  .concat(['key', 'ip', 'conn', 'connected', 'tx'].map((sort) => `sort=${sort}&after=zz`));

const QUESTIONS = [
  ...FILTERS.flatMap((filter) => [`/?${filter}`, `/?${filter}&format=json`]),
  ...[...ORDERS, ...PAGES].flatMap((page) => [`/?all&${page}`, `/x/y?all&${page}&format=json`]),
  ...ORDERS.map((order) => `/?all&limit=2&${order}&format=json`),
  ...['', '/?format=xml', '/?sort=zz', '/?all&format=JSON', '/?all&format=html&limit=1'],
];

/** An answer without what must differ: ports, times. */
async function answer(port: number, question: string): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/debug/clients${question}`, { redirect: 'manual' });
  const names = ['content-type', 'location', 'content-security-policy', 'strict-transport-security', 'x-frame-options'];
  const headers = names.map((name) => response.headers.get(name)).join('\n');
  const text = (await response.text())
    .replace(/127\.0\.0\.1(%3A|:)\d+/g, 'REMOTE')
    .replace(/"\d{4}-\d\d-\d\dT[\d:.]+Z"/g, 'TIME')
    .replace(/after=1\d{18}/g, 'after=TIME')
    .replace(/"connected": \d+/g, '"connected": AGE')
    .replace(/<td>\d+s<\/td>/g, '<td>AGE</td>');
  return `${response.status}\n${headers}\n${text}`;
}

describe.skipIf(newestDerperMissing())('derper 1.104.5', () => {
  test.each([1, 3])('answers as a relay with %d shards', { timeout: GO_DERPER_TIMEOUT }, async (shards) => {
    const derper = await startGoDerper({ newest: true });
    const clients: RelayClient[] = [];
    try {
      await withRelay({ shards }, async ({ server }) => {
        const httpServer = createPageServer({ debug: debugPages({ relay: server }) });
        const ours = await server.listen({ host: '127.0.0.1', port: 0, httpServer });
        for (const port of [derper.port, ours.port]) clients.push(...(await populate(port)));
        for (const question of QUESTIONS) {
          expect(await answer(ours.port, question), question).toBe(await answer(derper.port, question));
        }
        for (const client of clients) client.close();
        httpServer.closeAllConnections();
      });
    } finally {
      await derper.close();
    }
  });
});
