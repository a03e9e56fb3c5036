import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPageServer, debugPages } from 'derplane';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { type CertificateLife, ExpiryWatch } from '../dist/certificates/expiry.js';
import { certificateSource } from '../dist/certificates/source.js';
import { makeCertificate } from './support/certificates.js';
import { ask, end, listen } from './support/debug_server.js';
import { FakeAcme, problem } from './support/fake_acme.js';
import { LogWatch } from './support/log_watch.js';
import { RecordingSink } from './support/recording_sink.js';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NOW = Date.parse('2030-01-01T00:00:00Z');
const NAME = 'derp.example.com';

const watches: ExpiryWatch[] = [];
afterEach(() => {
  for (const watch of watches.splice(0)) watch.close();
});

/** A certificate of 90 days that ends at `end`. */
const ending = (end: number, name = NAME): CertificateLife => ({
  name,
  notBefore: new Date(end - 90 * DAY),
  notAfter: new Date(end),
});

function watch(expiries: CertificateLife[]) {
  const logger = new LogWatch();
  const made = new ExpiryWatch(() => expiries, logger, 'replace it');
  watches.push(made);
  return { logger, check: (at: number) => made.check(at) };
}

describe('a warning', () => {
  test('comes from 14 days before the end on, once a day however often is looked', () => {
    const { logger, check } = watch([ending(NOW)]);
    for (let at = NOW - 16 * DAY; at <= NOW + 2 * DAY; at += HOUR) check(at);
    expect(logger.lines).toHaveLength(16);
    expect(logger.lines[0]).toBe(
      `WARN certificate of ${NAME} expires on 2030-01-01T00:00:00.000Z, in 13 days; replace it`,
    );
    expect(logger.lines[12]).toMatch(/in 1 day; replace it$/);
    expect(logger.lines[14]).toMatch(
      /^WARN certificate of derp\.example\.com expired on 2030-01-01T00:00:00\.000Z: clients refuse it; replace it$/,
    );
  });

  test('does not come at 14 days and more', () => {
    const { logger, check } = watch([ending(NOW)]);
    check(NOW - 14 * DAY);
    expect(logger.lines).toEqual([]);
  });

  test('comes in the last quarter of a short life only, when a renewal is overdue', () => {
    const sixDays = { name: NAME, notBefore: new Date(NOW - 6 * DAY), notAfter: new Date(NOW) };
    const { logger, check } = watch([sixDays]);
    for (let at = NOW - 6 * DAY; at <= NOW - 1.5 * DAY; at += HOUR) check(at);
    expect(logger.lines).toEqual([]);
    check(NOW - 1.5 * DAY + HOUR);
    expect(logger.lines).toHaveLength(1);
  });

  test('comes at once for another certificate that ends soon', () => {
    const expiries = [ending(NOW)];
    const { logger, check } = watch(expiries);
    check(NOW - DAY);
    expiries[0] = ending(NOW + DAY);
    check(NOW - DAY + 1);
    expect(logger.lines).toHaveLength(2);
  });

  test('comes for each certificate, and after the clock was set back', () => {
    const { logger, check } = watch([ending(NOW), ending(NOW, '192.0.2.1')]);
    check(NOW - DAY);
    check(NOW - 10 * DAY);
    expect(logger.lines).toHaveLength(4);
  });
});

test('an ACME certificate whose renewal fails is warned of when it is overdue', async () => {
  const [folder, fake] = await Promise.all([mkdtemp(join(tmpdir(), 'derplane-expiry-')), FakeAcme.listen()]);
  const kept = await makeCertificate({
    notBefore: new Date(Date.now() - 80 * DAY),
    notAfter: new Date(Date.now() + 5.5 * DAY),
  });
  await writeFile(join(folder, NAME), kept.keyPem + kept.cert);
  fake.failAlways('newOrder', problem('serverInternal', 'down', 400));
  const logger = new LogWatch();
  vi.useFakeTimers({ toFake: ['setInterval'] });
  try {
    const source = await certificateSource(
      { mode: 'letsencrypt', folder, hostname: NAME, acme: { directory: fake.directory, ipCertificates: false } },
      new RecordingSink(),
      logger,
    );
    source.start();
    await logger.line(/getting cert/);
    vi.advanceTimersByTime(HOUR);
    expect(logger.lines.filter((line) => line.startsWith('WARN'))).toEqual([
      expect.stringMatching(
        /^WARN certificate of derp\.example\.com expires on .*, in 5 days; its renewal is overdue$/,
      ),
    ]);
    await source.close();
  } finally {
    vi.useRealTimers();
    await fake.close();
    await rm(folder, { recursive: true });
  }
});

describe('the end of each certificate is a metric', () => {
  const certificates = () => [
    { name: NAME, notAfter: new Date(Date.now() + 30.5 * DAY) },
    { name: '2001:db8::1', notAfter: new Date(Math.floor(Date.now() / 1000) * 1000 - DAY) },
  ];

  async function fetchPage(path: string, options: object): Promise<string> {
    const server = createPageServer({ debug: debugPages(options) });
    const port = await listen(server);
    const { body } = await ask(port, path);
    await end(server);
    return body;
  }

  test('for Prometheus', async () => {
    const text = await fetchPage('/debug/varz', { certificates });
    expect(text).toMatch(/^# TYPE derplane_certificate_not_after_seconds gauge$/m);
    const days = (name: string) =>
      Number(text.match(new RegExp(`^derplane_certificate_remaining_seconds\\{name="${name}"\\} (\\S+)$`, 'm'))![1]) /
      86_400;
    expect(Math.floor(days('derp\\.example\\.com'))).toBe(30);
    expect(Math.floor(days('2001:db8::1'))).toBe(-2);
    const [, seconds] = text.match(/^derplane_certificate_not_after_seconds\{name="2001:db8::1"\} (\S+)$/m)!;
    expect(Math.abs(Number(seconds) + DAY / 1000 - Date.now() / 1000)).toBeLessThan(60);
  });

  test('in the JSON figures', async () => {
    const { derplane } = JSON.parse(await fetchPage('/debug/vars', { certificates }));
    const remaining = derplane.gauge_certificate_remaining_seconds;
    expect(Object.keys(remaining)).toEqual([NAME, '2001:db8::1']);
    expect(remaining['2001:db8::1']).toBeLessThan(0);
    expect(derplane.gauge_certificate_not_after_seconds).toHaveProperty([NAME]);
  });

  test('and nothing where there are none', async () => {
    expect(await fetchPage('/debug/varz', {})).not.toContain('certificate');
    expect(await fetchPage('/debug/vars', { certificates: () => [] })).not.toContain('certificate');
  });
});
