/** Files that hold something else than they should: each is named as what it is, with the way out. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createPublicKey } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TlsContext } from 'derplane';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readKeyPair } from '../dist/certificates/key_pair.js';
import { refusalOf } from './support/certificate_refusal.js';
import { makeCertificate, type TestCertificate } from './support/certificates.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-wrong-files-'));
const files = { cert: join(folder, 'x.crt'), key: join(folder, 'x.key') };
let made: TestCertificate;

beforeAll(async () => {
  made = await makeCertificate();
});
afterAll(() => rmSync(folder, { recursive: true }));

/** What is said of a pair; the other file is right where only one is given. */
function refusal({ cert = made.cert, key = made.keyPem }: { cert?: string | Uint8Array; key?: string | Uint8Array }) {
  writeFileSync(files.cert, cert);
  writeFileSync(files.key, key);
  return refusalOf(() => readKeyPair(files));
}

const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'] });

describe('instead of a certificate', () => {
  test('an empty file', () =>
    expect(refusal({ cert: ' \n' })).toBe(`${files.cert}: no certificate in it: the file is empty`));

  test('the key: the two files are swapped', () => {
    expect(refusal({ cert: made.keyPem, key: made.cert })).toBe(
      `${files.cert}: holds the private key, and ${files.key} the certificate: the two files are swapped`,
    );
  });

  test('the key, twice', () =>
    expect(refusal({ cert: made.keyPem })).toMatch(/x\.crt: no certificate in it: it holds a private key$/));

  test('a certificate in DER, and a key', () => {
    expect(refusal({ cert: made.der })).toMatch(
      /x\.crt: .*: it is a certificate in DER; convert it: openssl x509 -inform der -in \S+x\.crt /,
    );
    const der = made.key.export({ type: 'pkcs8', format: 'der' });
    expect(refusal({ cert: der })).toMatch(/x\.crt: no certificate in it: it is a private key in DER/);
  });

  test('PKCS #12, PKCS #7, a request', () => {
    refusal({});
    openssl('pkcs12', '-export', '-in', 'x.crt', '-inkey', 'x.key', '-passout', 'pass:x', '-out', 'x.p12');
    openssl('crl2pkcs7', '-nocrl', '-certfile', 'x.crt', '-out', 'x.p7');
    openssl('req', '-new', '-key', 'x.key', '-subj', '/CN=x', '-out', 'x.csr');
    const of = (name: string) => refusal({ cert: readFileSync(join(folder, name)) });
    expect(of('x.p12')).toMatch(/no certificate in it: it is PKCS #12; convert it: openssl pkcs12 /);
    expect(of('x.p7')).toMatch(/no certificate in it: it holds PKCS #7; convert it: openssl pkcs7 /);
    expect(of('x.csr')).toMatch(/no certificate in it: it holds a certificate request; /);
  });

  test('half of one, UTF-16, and what is nothing of the kind', () => {
    expect(refusal({ cert: made.cert.slice(0, 200) })).toMatch(
      /the block "-----BEGIN CERTIFICATE-----" is damaged or cut off$/,
    );
    const utf16 = Buffer.concat([Buffer.of(0xff, 0xfe), Buffer.from(made.cert, 'utf16le')]);
    expect(refusal({ cert: utf16 })).toMatch(/no certificate in it: it is UTF-16 text; save it as UTF-8$/);
    for (const cert of ['hello', Buffer.of(0x30), Buffer.of(0x30, 0x82, 1), Buffer.from('0'.repeat(100))]) {
      expect(refusal({ cert })).toMatch(
        /no certificate in it; it takes PEM that begins with "-----BEGIN CERTIFICATE-----"$/,
      );
    }
  });
});

describe('instead of a key', () => {
  test('an empty file', () => expect(refusal({ key: '' })).toMatch(/x\.key: no private key in it: the file is empty$/));

  test('the certificate', () => {
    expect(refusal({ key: made.cert })).toMatch(/x\.key: no private key in it: it holds a certificate$/);
  });

  test('the public key, one of OpenSSH, one in DER', () => {
    const publicPem = createPublicKey(made.key).export({ type: 'spki', format: 'pem' });
    expect(refusal({ key: publicPem as string })).toMatch(/no private key in it: it holds a public key only$/);
    const ssh = made.keyPem.replaceAll('PRIVATE KEY', 'OPENSSH PRIVATE KEY');
    expect(refusal({ key: ssh })).toMatch(
      /it holds a key of OpenSSH; convert it: ssh-keygen -p -m PKCS8 -f \S+x\.key$/,
    );
    for (const type of ['pkcs8', 'sec1'] as const) {
      expect(refusal({ key: made.key.export({ type, format: 'der' }) })).toMatch(
        /no private key in it: it is a private key in DER; convert it: openssl pkey -inform der /,
      );
    }
  });

  test('a key that this user may not read', () => {
    refusal({});
    const script = `
      import { readKeyPair } from ${JSON.stringify(new URL('../dist/certificates/key_pair.js', import.meta.url).href)};
      import { chmodSync } from 'node:fs';
      chmodSync(${JSON.stringify(files.key)}, 0);
      try { if (process.getuid() === 0) process.setuid(65534); readKeyPair(${JSON.stringify(files)}); } catch (error) { console.log(error.message); }`;
    execFileSync('chmod', ['755', folder]);
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    execFileSync('chmod', ['600', files.key]);
    expect(stdout).toMatch(
      /x\.key: EACCES: permission denied: the user that runs derplane \(uid \d+\) may not read it\n$/,
    );
  });
});

test('a key too weak for OpenSSL is refused with what would do', () => {
  openssl('req', '-x509', '-newkey', 'rsa:512', '-nodes', '-subj', '/CN=x', '-keyout', 'w.key', '-out', 'w.crt');
  const [cert, key] = ['w.crt', 'w.key'].map((name) => readFileSync(join(folder, name), 'utf8')) as [string, string];
  expect(() => new TlsContext().set('*', [{ cert, key }])).toThrow(
    /key too small: too weak for OpenSSL \S+; take an ECDSA key, or RSA of 2,048/,
  );
});
