import { X509Certificate } from 'node:crypto';
import { PrivateKey } from 'derplane';
import { describe, expect, test } from 'vitest';
import { META_CERTIFICATE_RENEWAL, makeMetaCertificate, readMetaCertificate } from '../dist/tls/meta_certificate.js';
import { makeCertificate } from './support/certificates.js';

const DAY = 86_400_000;
const { publicKey } = PrivateKey.generate();

describe('a meta certificate', () => {
  test('says the relay key and the protocol version', async () => {
    const certificate = new X509Certificate(await makeMetaCertificate(publicKey));
    expect(certificate.subject).toBe(`CN=derpkey${publicKey.hex}`);
    expect(certificate.issuer).toBe(certificate.subject);
    expect(certificate.serialNumber).toBe('02');
  });

  test('is a self-signed Ed25519 certificate that is no authority', async () => {
    const certificate = new X509Certificate(await makeMetaCertificate(publicKey));
    expect(certificate.publicKey.asymmetricKeyType).toBe('ed25519');
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(certificate.ca).toBe(false);
  });

  test('has basic constraints, critical, and neither key identifier', async () => {
    const der = Buffer.from(await makeMetaCertificate(publicKey));
    expect(der.includes(Buffer.from('0603551d130101ff04023000', 'hex'))).toBe(true);
    for (const identifier of ['0603551d0e', '0603551d23'])
      expect(der.includes(Buffer.from(identifier, 'hex'))).toBe(false);
  });

  test('is valid for 30 days to either side, and renewed before', async () => {
    const { validFrom, validTo } = new X509Certificate(await makeMetaCertificate(publicKey));
    expect(Math.abs(Date.parse(validFrom) + 30 * DAY - Date.now())).toBeLessThan(DAY);
    expect(Math.abs(Date.parse(validTo) - 30 * DAY - Date.now())).toBeLessThan(DAY);
    expect(META_CERTIFICATE_RENEWAL).toBeLessThan(30 * DAY);
  });

  test('has a key of its own each time', async () => {
    const [one, other] = await Promise.all([makeMetaCertificate(publicKey), makeMetaCertificate(publicKey)]);
    const key = (der: Uint8Array) => new X509Certificate(der).publicKey;
    expect(key(one).equals(key(other))).toBe(false);
  });

  test('is read as it was made', async () => {
    const read = readMetaCertificate(await makeMetaCertificate(publicKey));
    expect(read?.version).toBe(2);
    expect(read?.serverKey.equals(publicKey)).toBe(true);
  });
});

describe('no meta certificate', () => {
  test('is another certificate', async () => {
    expect(readMetaCertificate((await makeCertificate()).der)).toBeUndefined();
  });

  test.each([
    ['a short key', `derpkey${'a'.repeat(63)}`],
    ['a long key', `derpkey${'a'.repeat(65)}`],
    ['no hexadecimal digits', `derpkey${'g'.repeat(64)}`],
    ['nothing before the key', 'a'.repeat(64)],
    ['the key of nobody', `derpkey${'0'.repeat(64)}`],
  ])('is one whose name has %s', async (_, commonName) => {
    expect(readMetaCertificate((await makeCertificate({ commonName, serialNumber: '02' })).der)).toBeUndefined();
  });

  test.each(['00', '0100', 'ff01'])('is one with the serial number %s', async (serialNumber) => {
    const { der } = await makeCertificate({ commonName: `derpkey${publicKey.hex}`, serialNumber });
    expect(readMetaCertificate(der)).toBeUndefined();
  });

  test('is what is no certificate', async () => {
    const der = await makeMetaCertificate(publicKey);
    for (const bytes of [new Uint8Array(), Uint8Array.of(0x30), der.subarray(0, 100)]) {
      expect(readMetaCertificate(bytes)).toBeUndefined();
    }
  });
});

test('versions up to 255 and upper case are read', async () => {
  const commonName = `derpkey${publicKey.hex.toUpperCase()}`;
  const read = readMetaCertificate((await makeCertificate({ commonName, serialNumber: 'ff' })).der);
  expect(read?.version).toBe(255);
  expect(read?.serverKey.equals(publicKey)).toBe(true);
});
