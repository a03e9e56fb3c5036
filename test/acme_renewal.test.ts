import { readFile, rm, writeFile } from 'node:fs/promises';
import { axios } from 'acme-client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AcmeOptions } from '../dist/certificates/acme.js';
import { createTransport } from '../dist/certificates/acme_transport.js';
import type { CertificateStore } from '../dist/certificates/certificate_store.js';
import { ManagedCertificate } from '../dist/certificates/managed_certificate.js';
import { renewalRetryDelay, renewalTime } from '../dist/certificates/renewal.js';
import { AcmeRig, HOST } from './support/acme_rig.js';
import { FakeAcme, problem } from './support/fake_acme.js';
import { TestClock } from './support/test_clock.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

describe('when a certificate is renewed', () => {
  test.each([
    ['90 days', 90 * DAY, 60 * DAY, HOUR],
    ['a year', 365 * DAY, 335 * DAY, HOUR],
    ['6 days', 6 * DAY, 4 * DAY, HOUR],
    ['3 hours', 3 * HOUR, 2 * HOUR, 6 * MINUTE],
  ])(
    'of %s: a third of its life before the end, 30 days at most, up to a tenth of that or an hour later',
    (_life, life, at, jitter) => {
      const lifetime = { notBefore: 0, notAfter: life };
      expect(renewalTime(lifetime, 0)).toBe(at);
      expect(renewalTime(lifetime, 1)).toBe(at + jitter);
    },
  );

  test('a renewal that failed is tried again in 30 to 60 minutes', () => {
    expect([0, 0.5, 1].map((random) => renewalRetryDelay(random) / MINUTE)).toEqual([30, 45, 60]);
  });
});

describe('a source of certificates', () => {
  let rig: AcmeRig;
  let fake: FakeAcme;
  let clock: TestClock;

  beforeEach(async () => {
    [rig, fake] = await Promise.all([AcmeRig.make(), FakeAcme.listen()]);
    clock = new TestClock();
    fake.now = () => clock.now();
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

  /** Started, and served since. */
  const served = async (options: Partial<AcmeOptions> = {}) => {
    const source = await start(options);
    await rig.log.line(/got cert/);
    await clock.sleeping();
    return source;
  };

  const addresses = { hostname: '127.0.0.1', ipCertificates: true };

  test('handshakes that come before the certificate wait for it, and there is one order however many come', async () => {
    const source = await start();
    const peers = await Promise.all(Array.from({ length: 5 }, () => rig.sink.handshake(HOST)));
    for (let i = 0; i < 5; i++) source.wanted(HOST.toUpperCase());
    expect(new Set(peers.map(({ fingerprint256 }) => fingerprint256)).size).toBe(1);
    await clock.sleeping();
    expect(fake.orders).toHaveLength(1);
  });

  test('names that are not ours are never asked for', async () => {
    const source = await served();
    for (const name of ['other.example.com', '127.0.0.1', '::1', '', '*']) source.wanted(name);
    await expect(rig.sink.handshake('other.example.com')).rejects.toThrow();
    expect(fake.orders).toHaveLength(1);
  });

  test('no timer is trusted for longer than an hour', async () => {
    await served();
    for (let days = 0; days < 50; days++) clock.pass(DAY);
    expect(Math.max(...clock.waits)).toBeLessThanOrEqual(HOUR);
    expect(fake.orders).toHaveLength(1);
  });

  test('a renewal that fails leaves the old certificate served, and is tried again in 30 to 60 minutes', async () => {
    await served();
    fake.failAlways('newOrder', problem('serverInternal', 'down', 400));
    clock.pass(61 * DAY);
    const line = await rig.log.line(/getting cert/);
    expect(Number(/next attempt in (\d+) min/.exec(line)?.[1])).toBeGreaterThanOrEqual(30);
    expect(Number(/next attempt in (\d+) min/.exec(line)?.[1])).toBeLessThanOrEqual(60);
    await rig.sink.handshake(HOST);
    await clock.sleeping();
    const asked = fake.requests.get('newOrder');
    clock.pass(29 * MINUTE);
    expect(fake.requests.get('newOrder')).toBe(asked);
    fake.failAlways('newOrder', undefined);
    clock.pass(32 * MINUTE);
    await rig.log.line(/got cert/, 2);
    expect(rig.sink.calls.map(({ method }) => method).filter((method) => !/challenge/i.test(method))).toEqual([
      'expect',
      'set',
      'unexpect',
      'set',
    ]);
  });

  test('a certificate of an address is renewed below a third of its life; failures wait 1 min doubling', async () => {
    fake.life = 6 * DAY;
    await served(addresses);
    clock.pass(4 * DAY - MINUTE);
    expect(fake.orders).toHaveLength(1);
    fake.failAlways('newOrder', problem('serverInternal', 'down', 400));
    clock.pass(HOUR);
    expect(await rig.log.line(/getting cert for 127\.0\.0\.1/)).toMatch(/next attempt in 1 min/);
    await clock.sleeping();
    fake.failAlways('newOrder', undefined);
    clock.pass(MINUTE);
    await rig.log.line(/got cert/, 2);
    expect(fake.orders[0]?.wish).toEqual({ identifiers: [{ type: 'ip', value: '127.0.0.1' }], profile: 'shortlived' });
  });

  test('an address whose certificate could not be had is asked for again when the next client comes, not before', async () => {
    await served({ ipCertificates: true });
    fake.failNext('newOrder', problem('rejectedIdentifier', 'no', 400));
    await expect(rig.sink.handshake()).rejects.toThrow();
    await rig.log.line(/getting cert for 127\.0\.0\.1/);
    await expect(rig.sink.handshake()).rejects.toThrow();
    const asked = fake.requests.get('newOrder');
    clock.pass(5 * HOUR);
    expect(fake.requests.get('newOrder')).toBe(asked);
    expect((await rig.sink.handshake()).subjectaltname).toBe('IP Address:127.0.0.1');
  });

  test('behind address translation clients without SNI wait for the certificate of the hostname', async () => {
    const source = await start({ hostname: '192.0.2.7', ipCertificates: true });
    const early = rig.sink.handshake();
    await rig.log.line(/got cert for 192\.0\.2\.7/);
    source.wanted('*');
    expect((await rig.sink.handshake('other.example.com')).subjectaltname).toBe('IP Address:192.0.2.7');
    expect((await early).subjectaltname).toMatch(/^IP Address:(192\.0\.2\.7|127\.0\.0\.1)$/);
    expect(rig.sink.expected.has('*')).toBe(false);
  });

  test('a clock that jumps past the renewal renews; one that jumps back does nothing', async () => {
    await served();
    clock.jump(-20 * DAY);
    clock.pass(HOUR);
    await rig.log.line(/WARN .*is valid from .* on, but this machine's clock says .*: set it right/);
    clock.pass(5 * HOUR);
    expect(rig.log.lines.filter((line) => /set it right/.test(line))).toHaveLength(1);
    expect(fake.orders).toHaveLength(1);
    clock.jump(20 * DAY + 61 * DAY);
    clock.pass(HOUR);
    await rig.log.line(/got cert/, 2);
  });

  test('a failure before the clock was set back does not wait for the old date', async () => {
    clock.jump(3650 * DAY);
    fake.failNext('newOrder', problem('serverInternal', 'down', 400));
    await start();
    await rig.log.line(/getting cert/);
    await clock.sleeping();
    clock.jump(-3650 * DAY);
    clock.pass(MINUTE);
    await rig.log.line(/got cert/);
  });

  test('a clock far ahead is told, and does not order certificate after certificate', async () => {
    clock.jump(200 * DAY);
    fake.now = () => clock.now() - 200 * DAY;
    await served();
    expect(await rig.log.line(/is new \(expires/)).toMatch(/WARN .*this machine's clock says .*: set it right \(NTP\)/);
    await rig.sink.handshake(HOST);
    clock.pass(29 * MINUTE);
    expect(fake.orders).toHaveLength(1);
    clock.jump(-200 * DAY);
    clock.pass(5 * HOUR);
    expect(fake.orders).toHaveLength(1);
  });

  test('a kept certificate that has ended is not served while a new one can be had', async () => {
    fake.life = DAY;
    const first = await served();
    await first.close();
    rig.sink.certificates.clear();
    clock.jump(2 * DAY);
    await start();
    await rig.log.line(/got cert/, 2);
    expect(rig.sink.calls.filter(({ method }) => method === 'set')).toHaveLength(2);
  });

  test('a kept certificate that has ended is better than none when no new one can be had', async () => {
    fake.life = DAY;
    const first = await served();
    const { fingerprint256 } = await rig.sink.handshake(HOST);
    await first.close();
    rig.sink.certificates.clear();
    clock.jump(2 * DAY);
    fake.failAlways('newOrder', problem('serverInternal', 'down', 400));
    await start();
    expect(await rig.log.line(/getting cert/)).toMatch(/next attempt in 1 min/);
    expect((await rig.sink.handshake(HOST)).fingerprint256).toBe(fingerprint256);
  });

  test('a certificate that comes into the folder while the authority holds us back is taken within the hour', async () => {
    const first = await served();
    await first.close();
    const kept = await readFile(rig.path(HOST));
    await rm(rig.path(HOST));
    rig.sink.certificates.clear();
    fake.failAlways('newOrder', problem('rateLimited', 'come tomorrow', 429, { 'Retry-After': '86400' }));
    await start();
    expect(await rig.log.line(/getting cert/)).toMatch(/next attempt in 1440 min/);
    await clock.sleeping();
    await writeFile(rig.path(HOST), kept);
    clock.pass(HOUR);
    await rig.log.line(/loaded cached cert/);
    expect((await rig.sink.handshake(HOST)).subjectaltname).toBe(`DNS:${HOST}`);
    expect(fake.orders).toHaveLength(1);
  });

  test('a newer certificate that another relay put into the folder is taken instead of a new order', async () => {
    await served();
    const other = await rig.source({ directory: fake.directory, clock, env: {} });
    clock.jump(30 * DAY);
    await rm(rig.path(HOST));
    other.start();
    await rig.log.line(/got cert/, 2);
    await other.close();
    clock.pass(31 * DAY);
    await rig.log.line(/loaded cached cert/);
    expect(fake.orders).toHaveLength(2);
  });

  test('after close nothing is asked for', async () => {
    const source = await served();
    await source.close();
    clock.pass(100 * DAY);
    source.wanted(HOST);
    expect(fake.orders).toHaveLength(1);
  });
});

test('a request that nobody answers ends at its deadline', async () => {
  const fake = await FakeAcme.listen();
  fake.failAlways('directory', 'silence');
  const transport = createTransport(axios, new AbortController().signal, {}, 100);
  await expect(transport.request(fake.directory, 'get')).rejects.toThrow(/^127\.0\.0\.1:\d+: no answer within 0\.1 s$/);
  transport.close();
  await fake.close();
});

test('an order that does not end is ended at its deadline, and tried again', async () => {
  const lines: string[] = [];
  const note = (_fields: object, line: string) => void lines.push(line);
  const store: CertificateStore = { load: async () => undefined, save: async () => {} };
  const clock = new TestClock();
  const expected: boolean[] = [];
  const certificate = new ManagedCertificate({
    name: HOST,
    store,
    order: (signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    orderTimeout: 60,
    policy: 'keep',
    relaxed: true,
    serve: () => {},
    expect: (isExpected) => expected.push(isExpected),
    logger: { debug: note, info: note, warn: note, error: note },
    clock,
  });
  certificate.start();
  await clock.sleeping();
  expect(lines).toEqual([`derper: acme: getting cert for ${HOST}: not done within 0.001 min (next attempt in 1 min)`]);
  expect(expected).toEqual([true, false]);
  await certificate.close();
});
