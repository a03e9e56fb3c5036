import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type AcmeOptions, acmeCertificates } from '../dist/certificates/acme.js';
import { planAcme } from '../dist/certificates/acme_options.js';
import { canonicalAddress, isPublicAddress } from '../dist/ip_address.js';
import type { CertificateSink } from '../dist/tls/tls_context.js';
import { LogWatch } from './support/log_watch.js';

const nothing = () => {};
const sink: CertificateSink = {
  set: nothing,
  delete: nothing,
  setChallenge: nothing,
  deleteChallenge: nothing,
  expect: nothing,
  unexpect: nothing,
};

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-acme-'));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const options = (changes: Partial<AcmeOptions> = {}): AcmeOptions => ({
  sink,
  hostname: 'derp.example.com',
  certDir: folder,
  mode: 'letsencrypt',
  ipCertificates: false,
  logger: new LogWatch(),
  ...changes,
});

const gcp = (changes: Partial<AcmeOptions> = {}) =>
  options({ mode: 'gcp', email: 'a@example.com', eab: { kid: 'k', key: 'c2VjcmV0LXNlY3JldA==' }, ...changes });

test.each<[string, () => AcmeOptions, RegExp]>([
  ['no folder', () => options({ certDir: '' }), /-certdir is missing/],
  [
    'address certificates with gcp',
    () => gcp({ ipCertificates: true }),
    /--acme-ip-certs requires --certmode=letsencrypt/,
  ],
  ['gcp for an address', () => gcp({ hostname: '192.0.2.1' }), /--certmode=gcp requires --hostname to be a DNS name/],
  ['an address alone', () => options({ hostname: '192.0.2.1' }), /--certmode=manual .* --acme-ip-certs/],
  ['an IPv6 address alone', () => options({ hostname: '2001:db8::1' }), /--hostname is an IP address/],
  ['gcp without binding', () => options({ mode: 'gcp', email: 'a@example.com' }), /--acme-eab-kid and --acme-eab-key/],
  ['gcp with half a binding', () => gcp({ eab: { kid: 'k', key: '' } }), /--acme-eab-kid and --acme-eab-key/],
  ['gcp without mail address', () => gcp({ email: '' }), /--certmode=gcp requires --acme-email/],
  [
    'a binding key that is no base64',
    () => gcp({ eab: { kid: 'k', key: 's3cret!' } }),
    /^-acme-eab-key: must be base64url/,
  ],
  [
    'a binding key of impossible length',
    () => gcp({ eab: { kid: 'k', key: 'abcde' } }),
    /^-acme-eab-key: must be base64url/,
  ],
  ['a host without a dot', () => options({ hostname: 'relay' }), /-hostname "relay": .* must be a DNS name/],
  ['no host', () => options({ hostname: '' }), /-hostname "": /],
  ['a host with a path', () => options({ hostname: '../../etc/x.example' }), /-hostname /],
  [
    'a directory without TLS',
    () => options({ directory: 'http://ca.example.com/dir' }),
    /-acme-directory .* must be an https/,
  ],
  ['a directory that is no URL', () => options({ directory: 'letsencrypt' }), /-acme-directory "letsencrypt"/],
])('%s: refused at start, saying what to do', async (_what, make, expected) => {
  const start = acmeCertificates(make());
  await expect(start).rejects.toThrow(expected);
  await expect(start).rejects.toMatchObject({ code: 'ERR_DERP_BAD_OPTION' });
});

test('no message shows the binding key', async () => {
  await expect(acmeCertificates(gcp({ eab: { kid: 'k', key: 's3cret!' } }))).rejects.not.toThrow(/s3cret/);
});

test('a folder that cannot be made is refused at start', async () => {
  await writeFile(join(folder, 'file'), '');
  const certDir = join(folder, 'file/below');
  await expect(acmeCertificates(options({ certDir }))).rejects.toThrow(/^-certdir: ENOTDIR: .*file\/below/);
});

test.each([
  ['acme_account+key', {}],
  ['acme_account.key', {}],
  ['acme-account.key', { hostname: '127.0.0.1', ipCertificates: true }],
])('an unusable account key in %s is refused at start, and left as it is', async (name, changes) => {
  await writeFile(join(folder, name), 'rubbish');
  await expect(acmeCertificates(options(changes))).rejects.toThrow(
    new RegExp(`${name.replace('+', '\\+')}: .*move it away`),
  );
  expect(await readdir(folder)).toEqual([name]);
});

describe('what the flags mean', () => {
  test.each<[string, () => AcmeOptions, string]>([
    ['letsencrypt', () => options(), 'https://acme-v02.api.letsencrypt.org/directory'],
    ['gcp', () => gcp(), 'https://dv.acme-v02.api.pki.goog/directory'],
    ['-acme-directory', () => options({ directory: 'https://ca.example.com/dir' }), 'https://ca.example.com/dir'],
    ['-acme-directory with gcp', () => gcp({ directory: 'https://ca.example.com/dir' }), 'https://ca.example.com/dir'],
  ])('%s chooses the server', (_what, make, directoryUrl) => {
    expect(planAcme(make()).directoryUrl).toBe(directoryUrl);
  });

  test('only gcp uses the binding; its key may be base64 or base64url', () => {
    expect(planAcme(options({ eab: { kid: 'k', key: 'abcd' } })).externalAccount).toBeUndefined();
    for (const key of ['c2VjcmV0LXNlY3JldA==', 'c2VjcmV0LXNlY3JldA', '-_-_', '+/+/']) {
      expect(planAcme(gcp({ eab: { kid: 'k', key } })).externalAccount).toEqual({ kid: 'k', hmacKey: key });
    }
  });

  test.each([
    ['Derp.Example.COM', 'derp.example.com'],
    ['derp.example.com.', 'derp.example.com'],
    ['bücher.example', 'xn--bcher-kva.example'],
  ])('host %s is asked for as %s', (hostname, host) => {
    expect(planAcme(options({ hostname })).host).toBe(host);
  });

  test('an address as hostname means address certificates only', () => {
    const plan = planAcme(options({ hostname: '2001:DB8:0::1', ipCertificates: true }));
    expect([plan.host, plan.address]).toEqual([undefined, '2001:db8::1']);
  });
});

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
  ['::1', '::1'],
  ['[::1]', undefined],
  ['192.0.2', undefined],
  ['', undefined],
  ['fe80::1%eth0', undefined],
  ['derp.example.com', undefined],
])('address %s is written %s', (text, canonical) => {
  expect(canonicalAddress(text)).toBe(canonical);
});

test.each([
  ['8.8.8.8', true],
  ['10.1.2.3', false],
  ['100.100.100.100', false],
  ['127.0.0.1', false],
  ['169.254.1.1', false],
  ['2a00:1450::1', true],
  ['fd7a:115c:a1e0::1', false],
  ['fe80::1', false],
  ['::1', false],
])('whether %s is public: %s', (address, isPublic) => {
  expect(isPublicAddress(address)).toBe(isPublic);
});
