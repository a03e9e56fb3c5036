/** The relay's own certificate for an IP address, when it is out of date by a clock that can be believed. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DerpError } from 'derplane';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { readKeyPair } from '../dist/certificates/key_pair.js';
import { filesOf } from '../dist/certificates/manual.js';
import { makePair, SelfSignedCare } from '../dist/certificates/self_signed.js';
import { type CertificateSource, certificateSource } from '../dist/certificates/source.js';
import { formatPin } from '../dist/tls/pin.js';
import { type CertificateWish, makeCertificate } from './support/certificates.js';
import { LogWatch } from './support/log_watch.js';
import { RecordingSink } from './support/recording_sink.js';

const IP = '192.0.2.1';
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

let folder: string;
let logger: LogWatch;
let source: CertificateSource | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'derplane-dates-'));
  logger = new LogWatch();
});
afterEach(async () => {
  vi.useRealTimers();
  await source?.close();
  source = undefined;
  rmSync(folder, { recursive: true });
});

/** Puts a pair there that is valid between two moments, milliseconds from now. */
async function put(from: number, to: number, wish: CertificateWish = {}): Promise<string> {
  const dates = { notBefore: new Date(Date.now() + from), notAfter: new Date(Date.now() + to) };
  const { cert, keyPem } = await makeCertificate({ names: [IP], ...dates, ...wish });
  const files = filesOf(folder, IP);
  writeFileSync(files.cert, cert);
  writeFileSync(files.key, keyPem, { mode: 0o600 });
  return cert;
}

const make = () => makePair(filesOf(folder, IP), IP, logger);
const certificate = () => readFileSync(filesOf(folder, IP).cert, 'utf8');
const key = () => readFileSync(filesOf(folder, IP).key, 'utf8');

describe('is made anew, for the same key, and the pin is said to change:', () => {
  test.each([
    ['one that is old', -400 * DAY, -35 * DAY, /it expired on \d{4}-/],
    ['one of 1970', -Date.now(), 365 * DAY - Date.now(), /it expired on 1971-01-01T/],
    ['one of the future', 300 * DAY, 665 * DAY, /it is not valid before \d{4}-/],
  ])('%s', async (_, from, to, reason) => {
    await put(from, to);
    const keyBefore = key();
    expect(await make()).toBe(true);
    const { leaf, notBefore, notAfter } = readKeyPair(filesOf(folder, IP));
    expect(notBefore).toBeLessThanOrEqual(Date.now());
    expect(notAfter).toBeGreaterThan(Date.now() + 360 * DAY);
    expect(leaf.checkIP(IP)).toBe(IP);
    expect(key()).toBe(keyBefore);
    expect(logger.lines).toEqual([expect.stringMatching(reason)]);
    expect(logger.lines[0]).toMatch(
      /^WARN .*\.crt: .*, so a new one is made; its pin changed, put the new one into the DERP map$/,
    );
    expect(await make()).toBe(false);
  });
});

describe('stays as it is:', () => {
  test.each<[string, number, number, CertificateWish?]>([
    ['one that is in date', -DAY, DAY],
    ['one that begins within a day: the clock may be in another time zone', 12 * HOUR, 365 * DAY],
  ])('%s', async (_, from, to, wish) => {
    const before = await put(from, to, wish);
    expect(await make()).toBe(false);
    expect(certificate()).toBe(before);
    expect(logger.lines).toEqual([]);
  });

  test('one that an authority issued', async () => {
    const issuer = await makeCertificate({ names: [], commonName: 'root', ca: true });
    const before = await put(-9 * DAY, -DAY, { issuer });
    expect(await make()).toBe(false);
    expect(certificate()).toBe(before);
  });

  test('one that is right while the clock was never set', async () => {
    const before = await put(-DAY, 365 * DAY);
    vi.useFakeTimers({ toFake: ['Date'], now: 1_000_000 });
    expect(await make()).toBe(false);
    expect(certificate()).toBe(before);
  });
});

test('a first one is made whatever the clock says, with a warning, and made anew once the clock is set', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: 1_000_000 });
  expect(await make()).toBe(true);
  expect(logger.lines).toEqual([
    expect.stringMatching(/^WARN this machine's clock says 1970-01-01T.*: set it right \(NTP\)/),
  ]);
  vi.useRealTimers();
  expect(await make()).toBe(true);
  expect(readKeyPair(filesOf(folder, IP)).notAfter).toBeGreaterThan(Date.now());
});

describe('while the relay runs', () => {
  const start = async (onPinChange: () => void) => {
    const config = { mode: 'manual', folder, hostname: IP, acme: { ipCertificates: false } } as const;
    source = await certificateSource(config, new RecordingSink(), logger, onPinChange);
    return source;
  };

  test('a certificate that gets out of date is replaced, and the new pin told', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'setInterval', 'clearInterval'] });
    const changed = vi.fn();
    const { pin } = await start(changed);
    vi.setSystemTime(Date.now() + 400 * DAY);
    vi.advanceTimersByTime(60_000);
    const line = await logger.line(/INFO certificate of 192\.0\.2\.1: read anew/);
    expect(changed).toHaveBeenCalledOnce();
    expect(source!.pin).not.toBe(pin);
    expect(source!.pin).toBe(formatPin(readKeyPair(filesOf(folder, IP)).leaf.raw));
    expect(line).toContain(source!.pin);
    await logger.line(/its pin changed, put the new one into the DERP map/);
  });

  test('one that cannot be replaced is an error once an hour', async () => {
    await put(-9 * DAY, -DAY);
    vi.useFakeTimers({ toFake: ['Date', 'setInterval', 'clearInterval', 'performance'] });
    let attempts = 0;
    const make = async () => {
      attempts++;
      throw new DerpError('ERR_DERP_CERTIFICATE', 'the disk is full');
    };
    const care = new SelfSignedCare(filesOf(folder, IP), IP, logger, () => undefined, make);
    for (let minute = 0; minute < 90; minute++) await vi.advanceTimersByTimeAsync(60_000);
    expect(attempts).toBe(2);
    const line = `ERROR certificate of ${IP}: it is out of date and cannot be replaced: the disk is full`;
    expect(logger.lines).toEqual([line, line]);
    await care.close();
  });
});
