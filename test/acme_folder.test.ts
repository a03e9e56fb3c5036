import { execFile, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { accountKey } from '../dist/certificates/account_key.js';
import type { AcmeOptions } from '../dist/certificates/acme.js';
import { CertificateFolder } from '../dist/certificates/certificate_folder.js';
import { AcmeRig, HOST } from './support/acme_rig.js';
import { FakeAcme } from './support/fake_acme.js';
import { TestClock } from './support/test_clock.js';

const run = promisify(execFile);

const HOUR = 3_600_000;

let rig: AcmeRig;
let fake: FakeAcme;

beforeEach(async () => {
  [rig, fake] = await Promise.all([AcmeRig.make(), FakeAcme.listen()]);
});

afterEach(async () => {
  await rig.close();
  await fake.close();
});

const start = async (options: Partial<AcmeOptions> = {}) => {
  const source = await rig.source({ directory: fake.directory, env: {}, ...options });
  source.start();
  return source;
};

/** What the folder holds after a certificate was had. */
const filled = async (): Promise<{ key: string; chain: string }> => {
  const source = await start();
  await rig.log.line(/got cert/);
  await source.close();
  rig.sink.certificates.clear();
  rig.log.lines.length = 0;
  const text = await readFile(rig.path(HOST), 'utf8');
  const at = text.indexOf('-----BEGIN CERTIFICATE');
  return { key: text.slice(0, at), chain: text.slice(at) };
};

const newKey = async (...kind: string[]) => (await run('openssl', ['genpkey', ...kind])).stdout;

describe('a kept certificate that cannot be used', () => {
  test.each<[string, (kept: { key: string; chain: string }) => Promise<string>, RegExp]>([
    ['empty', async () => '', /does not begin with a private key/],
    ['rubbish', async () => '\u0000\u0001 rubbish', /does not begin with a private key/],
    ['without certificate', async ({ key }) => key, /no certificate follows the key/],
    ['cut off', async ({ key, chain }) => (key + chain).slice(0, -60), /no certificate follows the key/],
    ['in the wrong order', async ({ key, chain }) => chain + key, /does not begin with a private key/],
    ['with other text', async ({ key, chain }) => `${key}${chain}hello\n`, /text that is not PEM/],
    [
      'of another key',
      async ({ chain }) => (await newKey('-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256')) + chain,
      /is not the key of the first certificate/,
    ],
    [
      'with an encrypted key',
      async ({ chain }) => (await newKey('-algorithm', 'ED25519', '-aes256', '-pass', 'pass:x')) + chain,
      /the key is encrypted/,
    ],
    [
      'with a certificate that is none',
      async ({ key }) => `${key}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`,
      /certificate 1 of 1 in it is unreadable/,
    ],
    ['too big', async () => 'x'.repeat(2 * 1024 * 1024), /2097152 bytes are too many/],
  ])('%s: told once, kept until there is a new one, and a new one is asked for', async (_what, spoil, expected) => {
    await writeFile(rig.path(HOST), await spoil(await filled()));
    const spoilt = await readFile(rig.path(HOST), 'utf8');
    fake.failNext('newOrder', { status: 400 });
    const source = await start();
    await rig.log.line(/getting cert/);
    expect(await readFile(rig.path(HOST), 'utf8')).toBe(spoilt);
    await source.close();
    await start();
    await rig.log.line(/got cert/);
    const warnings = rig.log.lines.filter((line) => line.startsWith('WARN'));
    expect(warnings).toHaveLength(2);
    expect(warnings[0]).toMatch(expected);
    expect(warnings[0]).toContain(rig.path(HOST));
  });

  test('for another host: a new one is asked for', async () => {
    await filled();
    const text = await readFile(rig.path(HOST), 'utf8');
    await writeFile(rig.path('other.example.com'), text);
    await start({ hostname: 'other.example.com' });
    expect(await rig.log.line(/^WARN/)).toMatch(
      /invalid for hostname "other\.example\.com", valid for DNS:derp\.example\.com/,
    );
    await rig.log.line(/got cert for other/);
  });

  test('a useless RSA file is told and left alone', async () => {
    await writeFile(rig.path(`${HOST}+rsa`), 'rubbish');
    await start();
    await rig.log.line(/got cert/);
    expect(await rig.log.line(/^WARN/)).toMatch(/\+rsa: .*; it is left alone/);
    expect(await readFile(rig.path(`${HOST}+rsa`), 'utf8')).toBe('rubbish');
    expect(fake.orders).toHaveLength(1);
  });

  test('half a pair of an address: a new one is asked for', async () => {
    await writeFile(rig.path('127.0.0.1.crt'), 'rubbish');
    await start({ hostname: '127.0.0.1', ipCertificates: true });
    await rig.log.line(/got cert for 127\.0\.0\.1/);
  });
});

describe('a folder that cannot be written', () => {
  test('serves from memory, says so, and loses nothing', async () => {
    await filled();
    // In the way of the file: neither readable as one nor replaceable.
    await rm(rig.path(HOST));
    await mkdir(rig.path(`${HOST}/in the way`), { recursive: true });
    const source = await start();
    expect(await rig.log.line(/^ERROR/)).toMatch(
      /is not kept on disk, and served from memory only: .*EISDIR|ENOTEMPTY/,
    );
    await rig.sink.handshake(HOST);
    await source.close();
    expect((await readdir(rig.folder)).sort()).toEqual(['acme_account+key', HOST]);
  });
});

/** Only root may, and not in every container. */
const canMount = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0;

describe.skipIf(!canMount)('a full disk', () => {
  let disk: string;

  beforeEach(async () => {
    disk = await mkdtemp(join(tmpdir(), 'derplane-disk-'));
    await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk]);
  });

  afterEach(async () => {
    await run('umount', ['-l', disk]);
    await rm(disk, { recursive: true, force: true });
  });

  const fill = () => writeFile(join(disk, 'ballast'), Buffer.alloc(1024 * 1024)).catch(() => {});

  test('keeps the old file whole; the new certificate is served from memory', async () => {
    const folder = new CertificateFolder(disk);
    await folder.write([{ name: HOST, text: 'old' }]);
    await fill();
    const clock = new TestClock();
    await start({ certDir: disk, clock });
    expect(await rig.log.line(/served from memory only/)).toContain(`${disk}: ENOSPC`);
    expect(await rig.log.line(/account's key is not kept/)).toContain(`${disk}: ENOSPC`);
    await rig.sink.handshake(HOST);
    expect(await readFile(join(disk, HOST), 'utf8')).toBe('old');
    expect((await readdir(disk)).sort()).toEqual(['ballast', HOST]);
    await clock.sleeping();
    clock.pass(2 * HOUR);
    await clock.sleeping();
    await rm(join(disk, 'ballast'));
    clock.pass(HOUR);
    await expect.poll(() => readFile(join(disk, HOST), 'utf8')).toContain('BEGIN EC PRIVATE KEY');
    expect(rig.log.lines.filter((line) => /served from memory only/.test(line))).toHaveLength(1);
    expect(fake.orders).toHaveLength(1);
  });

  test('replaces neither of two files that belong together', async () => {
    const folder = new CertificateFolder(disk);
    await folder.write([
      { name: 'a.key', text: 'old key' },
      { name: 'a.crt', text: 'old chain' },
    ]);
    const entries = [
      { name: 'a.key', text: 'new key' },
      { name: 'a.crt', text: 'x'.repeat(256 * 1024) },
    ];
    await expect(folder.write(entries)).rejects.toThrow(/ENOSPC/);
    expect(await Promise.all(['a.key', 'a.crt'].map((name) => folder.read(name)))).toEqual(['old key', 'old chain']);
    expect((await readdir(disk)).sort()).toEqual(['a.crt', 'a.key']);
  });
});

test('what is kept is what the next start reads, whatever an authority writes around its certificates', async () => {
  fake.writeChain = (pem) => `issued for you\r\n${pem.replaceAll('\n', '\r\n')}\r\n\r\n`;
  const source = await start();
  await rig.log.line(/got cert/);
  await source.close();
  const { length } = fake.orders;
  await start();
  await rig.log.line(/loaded cached cert/);
  expect(fake.orders).toHaveLength(length);
  expect(await readFile(rig.path(HOST), 'utf8')).toMatch(/-----END CERTIFICATE-----\n$/);
});

test('two relays that start at once in one folder get one account', async () => {
  const folder = new CertificateFolder(rig.path('shared'));
  const keys = await Promise.all([1, 2, 3].map(() => accountKey(folder, ['account.key'], rig.log)()));
  expect(new Set(keys).size).toBe(1);
  expect(await readFile(rig.path('shared/account.key'), 'utf8')).toBe(keys[0]);
});

test('a folder that is missing is made for its owner only', async () => {
  const certDir = rig.path('a/b');
  await start({ certDir });
  await rig.log.line(/got cert/);
  expect((await stat(certDir)).mode & 0o777).toBe(0o700);
});
