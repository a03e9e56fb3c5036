import { writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { AcmeOptions } from '../dist/certificates/acme.js';
import { AcmeRig, HOST } from './support/acme_rig.js';
import { challengeProblem, type Failure, FakeAcme, problem, type Route } from './support/fake_acme.js';
import { TestClock } from './support/test_clock.js';

const MINUTE = 60_000;

let rig: AcmeRig;
let fake: FakeAcme;
let clock: TestClock;

beforeEach(async () => {
  [rig, fake] = await Promise.all([AcmeRig.make(), FakeAcme.listen()]);
  clock = new TestClock();
});

afterEach(async () => {
  await rig.close();
  await fake.close();
});

const start = async (options: Partial<AcmeOptions> = {}) => {
  const source = await rig.source({ directory: fake.directory, clock, env: {}, ...options });
  source.start();
  return source;
};

const failed = (count = 1) => rig.log.line(/^ERROR derper: acme: getting cert for derp\.example\.com: /, count);

test.each<[string, Route, Failure, RegExp]>([
  [
    'a directory that is not there',
    'directory',
    { status: 404 },
    /registering the account: 127\.0\.0\.1:\d+ answered HTTP status 404 /,
  ],
  [
    'a directory that is a web page',
    'directory',
    { status: 200, body: '<html>' },
    /registering the account: .*newAccount/,
  ],
  [
    'an order that is a web page',
    'newOrder',
    { status: 200, body: '<html>' },
    /new order: the answer is not a JSON object/,
  ],
  [
    'an authorization that is a web page',
    'authz',
    { status: 200, body: '<html>' },
    /reading the authorization: the answer is not a JSON object/,
  ],
  [
    'no account allowed',
    'account',
    problem('unauthorized', 'account is deactivated', 403),
    /registering the account: unauthorized: account is deactivated/,
  ],
  [
    'a contact that it does not like',
    'account',
    problem('invalidContact', 'no such domain'),
    /registering the account: invalidContact: no such domain/,
  ],
  [
    'a name that is refused',
    'newOrder',
    problem('rejectedIdentifier', 'policy forbids'),
    /new order: rejectedIdentifier: policy forbids/,
  ],
  [
    'an error without type or detail',
    'newOrder',
    { status: 400, body: {} },
    /new order: 127\.0\.0\.1:\d+ answered HTTP status 400/,
  ],
  [
    'an authorization that cannot be read',
    'authz',
    problem('malformed', 'what?'),
    /tls-alpn-01: reading the authorization: malformed: what\?; http-01: /,
  ],
  [
    'a challenge that is not accepted',
    'challenge',
    problem('malformed', 'too late'),
    /accepting the challenge: malformed: too late/,
  ],
  ['a CSR that is refused', 'finalize', problem('badCSR', 'weak key'), /finalizing the order: badCSR: weak key/],
  ['a CAA record', 'finalize', problem('caa', 'issue ";"', 403), /caa: issue ";"; a CAA record of the domain forbids/],
  [
    'no certificate to fetch',
    'cert',
    problem('serverInternal', 'lost', 404),
    /fetching the certificate: serverInternal: lost/,
  ],
  [
    'a certificate that is none',
    'cert',
    { status: 200, body: 'hello' },
    /what the authority sent: no certificate in it/,
  ],
  [
    'text with control characters',
    'newOrder',
    problem('malformed', 'a\r\nINFO b\u001b[31m'),
    /malformed: a INFO b \[31m/,
  ],
])('%s: one line says so, and the next attempt comes in a minute', async (_what, route, failure, expected) => {
  fake.failAlways(route, failure);
  await start();
  const line = await failed();
  expect(line).toMatch(expected);
  expect(line).toMatch(/ \(next attempt in 1 min\)$/);
  await clock.sleeping();
  fake.failAlways(route, undefined);
  clock.pass(MINUTE);
  await rig.log.line(/got cert/);
  expect(rig.log.lines.filter((text) => /^(ERROR|WARN)/.test(text))).toHaveLength(1);
});

test('subproblems say which name they are about', async () => {
  const subproblems = [
    { type: 'urn:ietf:params:acme:error:dns', detail: 'none', identifier: { type: 'dns', value: HOST } },
  ];
  fake.failNext('newOrder', {
    status: 400,
    body: { type: 'urn:ietf:params:acme:error:compound', detail: 'two', subproblems },
  });
  await start();
  expect(await failed()).toContain('compound: two; derp.example.com: dns: none');
});

test.each([
  ['dns', 'no A record', /dns: no A record; the name needs an A or AAAA record/],
  ['connection', 'refused', /connection: refused; the server must reach this machine/],
  ['unauthorized', 'wrong answer', /unauthorized: wrong answer/],
])('a validation that fails by %s is told for both kinds of challenge', async (type, detail, expected) => {
  fake.challengeError = challengeProblem(type, detail);
  await start();
  const line = await failed();
  expect(line).toMatch(new RegExp(`tls-alpn-01: ${expected.source}`));
  expect(line).toMatch(new RegExp(`http-01: ${expected.source}`));
  expect(fake.orders).toHaveLength(2);
  expect(rig.sink.challenges.size).toBe(0);
});

test('why the first challenge failed is told too when there is no second order', async () => {
  fake.challengeError = challengeProblem('connection', 'port 443 is closed');
  const line = failed();
  await start();
  await fake.requested('newOrder');
  fake.failNext('newOrder', problem('rateLimited', 'too many orders', 429, { 'Retry-After': '7200' }));
  expect(await line).toMatch(/tls-alpn-01: connection: port 443 is closed.*http-01: new order: rateLimited: too many/);
  expect(await line).toMatch(/next attempt in 120 min/);
});

test('a server without challenges that we can answer is told', async () => {
  fake.challenges = ['dns-01'];
  await start();
  expect(await failed()).toMatch(/tls-alpn-01: the server does not offer it for this name; http-01: /);
});

test('a certificate for another name is not served', async () => {
  fake.wrongName = 'other.example.com';
  await start();
  expect(await failed()).toMatch(
    /what the authority sent: cert invalid for hostname "derp\.example\.com", valid for DNS:other\.example\.com/,
  );
  expect(rig.sink.certificates.size).toBe(0);
});

test('a sink that cannot take the certificate is told', async () => {
  rig.sink.refusal = new Error('no such curve');
  await start();
  expect(await failed()).toContain('no such curve');
});

test('a server that is busy for a moment is asked again at once', async () => {
  fake.failNext('newOrder', problem('serverInternal', 'busy', 503, { 'Retry-After': '1' }), { status: 502 });
  await start();
  await rig.log.line(/got cert/);
  expect(fake.requests.get('newOrder')).toBe(3);
});

test('bad nonces are tried again', async () => {
  fake.failNext('newOrder', ...Array.from({ length: 3 }, () => problem('badNonce', 'used before')));
  await start();
  await rig.log.line(/got cert/);
  expect(fake.requests.get('newOrder')).toBe(4);
});

test('bad nonces without end are told', async () => {
  fake.failAlways('newOrder', problem('badNonce', 'used before'));
  await start();
  expect(await failed()).toContain('new order: badNonce: used before');
});

test.each([
  ['seconds', () => '7200'],
  ['a date', () => new Date(Date.now() + 7_200_000 + 1_000).toUTCString()],
])('a rate limit is kept for as long as the server says in %s', async (_form, retryAfter) => {
  fake.failNext('newOrder', problem('rateLimited', 'too many certificates', 429, { 'Retry-After': retryAfter() }));
  await start();
  expect(await failed()).toMatch(/new order: rateLimited: too many certificates \(next attempt in 120 min\)/);
  await clock.sleeping();
  clock.pass(118 * MINUTE);
  expect(fake.requests.get('newOrder')).toBe(1);
  clock.pass(3 * MINUTE);
  await rig.log.line(/got cert/);
});

test('no server makes us wait for longer than a day', async () => {
  fake.failNext('newOrder', problem('rateLimited', 'for ever', 429, { 'Retry-After': '999999999999' }));
  await start();
  expect(await failed()).toMatch(/next attempt in 1440 min/);
});

test('failures in a row wait longer each time, half an hour at most', async () => {
  fake.failAlways('newOrder', problem('rejectedIdentifier', 'no'));
  await start();
  const pauses: number[] = [];
  for (let count = 1; count <= 8; count++) {
    await failed(count);
    await clock.sleeping();
    pauses.push((clock.waits.at(-1) as number) / MINUTE);
    clock.pass(30 * MINUTE);
  }
  expect(pauses).toEqual([1, 2, 4, 8, 16, 30, 30, 30]);
});

test('an account that the server forgot is made anew', async () => {
  await start({ hostname: '127.0.0.1', ipCertificates: true });
  await rig.log.line(/got cert/);
  fake.failNext('newOrder', problem('accountDoesNotExist', 'who?'));
  await clock.sleeping();
  clock.pass(61 * 86_400_000);
  await rig.log.line(/accountDoesNotExist: who\?/);
  await clock.sleeping();
  clock.pass(MINUTE);
  await rig.log.line(/got cert/, 2);
  expect(fake.accounts).toHaveLength(2);
});

test('the mail address goes to the server, as agreement to its terms does', async () => {
  await start({ email: 'admin@example.com' });
  await rig.log.line(/got cert/);
  expect(fake.accounts).toEqual([{ termsOfServiceAgreed: true, contact: ['mailto:admin@example.com'] }]);
});

test.each([
  ['nobody listens', async () => 'https://127.0.0.1:1/', /127\.0\.0\.1:1: the connection was refused/],
  [
    'there is no such host',
    async () => 'https://acme.invalid/directory',
    /acme\.invalid: (its name has no address in DNS|DNS does not answer)/,
  ],
  [
    'it speaks no TLS',
    async () => fake.directory.replace('http:', 'https:'),
    /127\.0\.0\.1:\d+: .*(SSL|wrong version|packet length)/i,
  ],
])('a server that cannot be reached since %s is told', async (_why, directory, expected) => {
  await start({ directory: await directory() });
  expect(await failed()).toMatch(expected);
});

test.each(['SSL_CERT_FILE', 'NODE_EXTRA_CA_CERTS'])('a %s that cannot be read is told', async (name) => {
  await start({ env: { [name]: rig.path('missing.pem') } });
  expect(await failed()).toMatch(new RegExp(`${name}: ENOENT: .*missing\\.pem`));
});

test('a file of roots without a root is told', async () => {
  await writeFile(rig.path('empty.pem'), '');
  await start({ env: { SSL_CERT_FILE: rig.path('empty.pem') } });
  expect(await failed()).toMatch(/SSL_CERT_FILE: no PEM certificate in .*empty\.pem/);
});

test('an answer without end is cut off', async () => {
  fake.failAlways('directory', { status: 200, body: 'x'.repeat(2 * 1024 * 1024) });
  await start();
  expect(await failed()).toMatch(/it answered more than 1048576 bytes/);
});

test('closing ends an order that waits for a silent server, without a word', async () => {
  fake.failAlways('newOrder', 'silence');
  const source = await start();
  await fake.requested('newOrder');
  await source.close();
  expect(rig.log.lines.filter((line) => /^(ERROR|WARN)/.test(line))).toEqual([]);
});
