import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkName, isValidFor, readKeyPair } from '../dist/certificates/key_pair.js';
import { refusalOf } from './support/certificate_refusal.js';
import { type KeyType, makeCertificate, makeChain, type TestCertificate } from './support/certificates.js';
import { handshake } from './support/tls_handshake.js';

const HOST = 'derp.example.com';
const folder = mkdtempSync(join(tmpdir(), 'derplane-pair-'));
const files = { cert: join(folder, 'x.crt'), key: join(folder, 'x.key') };
const made: Record<KeyType, TestCertificate> = {} as never;

beforeAll(async () => {
  for (const type of ['ec', 'rsa', 'ed25519'] as const) made[type] = await makeCertificate({ type });
});
afterAll(() => rmSync(folder, { recursive: true }));

function read(cert: string, key: string) {
  writeFileSync(files.cert, cert);
  writeFileSync(files.key, key);
  return readKeyPair(files);
}

const pem = (type: KeyType, format: 'pkcs1' | 'pkcs8' | 'sec1') =>
  made[type].key.export({ type: format as 'pkcs8', format: 'pem' }) as string;

describe('a pair is read and works in a handshake:', () => {
  test.each([
    ['ec', 'sec1', 'EC PRIVATE KEY'],
    ['ec', 'pkcs8', 'PRIVATE KEY'],
    ['rsa', 'pkcs1', 'RSA PRIVATE KEY'],
    ['rsa', 'pkcs8', 'PRIVATE KEY'],
    ['ed25519', 'pkcs8', 'PRIVATE KEY'],
  ] as const)('%s as %s', async (type, format, label) => {
    const pair = read(made[type].cert, pem(type, format));
    expect(pair.key).toContain(`-----BEGIN ${label}-----`);
    const [leaf] = await handshake(pair, { servername: HOST, ca: made[type].cert });
    expect(leaf!.equals(made[type].der)).toBe(true);
  });

  test('a chain, of which clients know the root only', async () => {
    const { root, intermediate, leaf } = await makeChain();
    const pair = read(leaf.cert + intermediate.cert, leaf.keyPem);
    const served = await handshake(pair, { servername: HOST, ca: root.cert });
    expect(served.slice(0, 2).map((raw) => raw.toString('hex'))).toEqual(
      [leaf, intermediate].map(({ der }) => Buffer.from(der).toString('hex')),
    );
  });

  test('both in one file, with words between the blocks, parameters, and the line ends of Windows', async () => {
    const parameters = '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n';
    const both = `\ufeffBag Attributes - my -- key\n${parameters}${pem('ec', 'sec1')}subject=CN = x\n${made.ec.cert}`;
    const pair = read(both.replaceAll('\n', '\r\n'), both.replaceAll('\n', '\r\n'));
    await handshake(pair, { servername: HOST, ca: made.ec.cert });
    expect(pair.cert).not.toContain('PRIVATE');
  });
});

describe('refused with one line that names the file is', () => {
  const refusal = (cert: string, key: string) => refusalOf(() => read(cert, key));

  test('a certificate with a date that is none', () => {
    const der = Buffer.from(made.ec.der);
    const utcTime = Buffer.of(0x17, 0x0d);
    const notAfter = der.indexOf(utcTime, der.indexOf(utcTime) + 1);
    der.write('99', notAfter + 4); // the month
    const cert = `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`;
    expect(refusal(cert, made.ec.keyPem)).toMatch(/x\.crt: the dates .* are unreadable/);
  });

  test('an encrypted key', () => {
    const options = { cipher: 'aes-256-cbc', passphrase: 'x', format: 'pem' } as const;
    const pkcs8 = made.ec.key.export({ ...options, type: 'pkcs8' }) as string;
    const sec1 = made.ec.key.export({ ...options, type: 'sec1' }) as string;
    for (const key of [pkcs8, sec1]) expect(refusal(made.ec.cert, key)).toMatch(/x\.key: the key is encrypted; /);
  });

  test('a key of another certificate', () => {
    expect(refusal(made.ec.cert, made.rsa.keyPem)).toMatch(/^key .*x\.key: is not the key of the first .*x\.crt$/);
  });

  test('a chain whose leaf does not come first', async () => {
    const { intermediate, leaf } = await makeChain();
    expect(refusal(intermediate.cert + leaf.cert, leaf.keyPem)).toMatch(/belongs to certificate 2 .* must come first/);
  });

  test('a file without a certificate, or without a key', () => {
    expect(refusal(made.ec.keyPem, made.ec.keyPem)).toMatch(/x\.crt: no certificate in it/);
    expect(refusal(made.ec.cert, made.ec.cert)).toMatch(/x\.key: no private key in it/);
    for (const nothing of ['', 'hello', made.ec.cert.slice(0, 200)]) {
      expect(refusal(nothing, made.ec.keyPem)).toMatch(/x\.crt: no certificate in it/);
      expect(refusal(made.ec.cert, nothing)).toMatch(/x\.key: no private key in it/);
    }
  });

  test('a damaged certificate or key', () => {
    const damaged = (text: string) => text.replace(/(-----\n)[\s\S]{8}/, '$1AAAAAAAA');
    expect(refusal(damaged(made.ec.cert), made.ec.keyPem)).toMatch(/certificate 1 of 1 in it is unreadable/);
    expect(refusal(made.ec.cert + damaged(made.ec.cert), made.ec.keyPem)).toMatch(/certificate 2 of 2/);
    expect(refusal(made.ec.cert, damaged(made.ec.keyPem))).toMatch(/x\.key: the private key in it is unreadable/);
  });

  test('a key of a kind that clients do not know', () => {
    const kinds = [
      generateKeyPairSync('ec', { namedCurve: 'secp256k1' }),
      generateKeyPairSync('ed448'),
      generateKeyPairSync('x25519'),
    ];
    for (const { privateKey } of kinds) {
      const key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
      expect(refusal(made.ec.cert, key)).toMatch(/x\.key: a key of the kind (?:secp256k1|ed448|x25519); it takes/);
    }
  });

  test('a file that is missing, too long, or no file', () => {
    const missing = { cert: join(folder, 'missing.crt'), key: files.key };
    expect(() => readKeyPair(missing)).toThrow(/missing\.crt: ENOENT: no such file or directory$/);
    expect(refusal('x'.repeat(300_000), made.ec.keyPem)).toMatch(/300000 bytes are too many/);
    const isFolder = join(folder, 'folder.crt');
    mkdirSync(isFolder);
    expect(() => readKeyPair({ cert: isFolder, key: files.key })).toThrow(/folder\.crt: no regular file/);
    expect(() => readKeyPair({ cert: '/dev/zero', key: files.key })).toThrow(/no regular file/);
  });
});

describe('a certificate is valid for', () => {
  const valid = async (names: string[], host: string) => {
    const { cert, keyPem } = await makeCertificate({ names, commonName: 'cn.example.com' });
    return isValidFor(read(cert, keyPem).leaf, host);
  };

  test('each of its names, in any case, and wildcards of one label', async () => {
    const names = ['a.example.com', '*.b.example.com'];
    for (const host of ['a.example.com', 'A.Example.COM', 'a.example.com.', 'x.b.example.com']) {
      expect(await valid(names, host), host).toBe(true);
    }
    for (const host of ['b.example.com', 'x.y.b.example.com', 'cn.example.com', 'example.com', '192.0.2.1', '']) {
      expect(await valid(names, host), host).toBe(false);
    }
  });

  test('each of its addresses, however they are written', async () => {
    const names = ['192.0.2.1', '2001:db8::1'];
    for (const host of ['192.0.2.1', '::ffff:192.0.2.1', '2001:db8::1', '2001:DB8:0:0::1']) {
      expect(await valid(names, host), host).toBe(true);
    }
    for (const host of ['192.0.2.2', '2001:db8::2', '2001:db8::1%lo'])
      expect(await valid(names, host), host).toBe(false);
    expect(await valid(['192.0.2.1.example.com'], '192.0.2.1')).toBe(false);
  });

  test('nothing, when it has a common name alone', async () => {
    expect(await valid([], 'cn.example.com')).toBe(false);
  });

  test.each([
    [[], 'CN.Example.com', /invalid for hostname "CN\.Example\.com": only its common name \(CN\) is that, .* \(SAN\)$/],
    [['a.example.com'], 'cn.example.com', /only its common name \(CN\) is that, .*, beside DNS:a\.example\.com$/],
    [['a.example.com'], 'b.example.com', /invalid for hostname "b\.example\.com", valid for DNS:a\.example\.com$/],
    [
      [],
      'b.example.com',
      /invalid for hostname "b\.example\.com", valid for nothing: it has no subject alternative name \(SAN\)$/,
    ],
  ])('names %j, not %s, and the error says which', async (names, host, message) => {
    const { cert, keyPem } = await makeCertificate({ names, commonName: 'cn.example.com' });
    const where = { cert: 'x.crt', key: 'x.key' };
    expect(() => checkName(read(cert, keyPem), host, where)).toThrow(message);
  });
});
