import { createHash } from 'node:crypto';
import { PrivateKey } from 'derplane';
import { beforeAll, describe, expect, test } from 'vitest';
import { makeMetaCertificate } from '../dist/tls/meta_certificate.js';
import { type CertificatePin, checkPin, formatPin, isPin, parsePin } from '../dist/tls/pin.js';
import { makeCertificate, type TestCertificate } from './support/certificates.js';

const HOST = 'derp.example.com';
const DAY = 86_400_000;
const EMPTY = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

let pinned: TestCertificate;
let other: TestCertificate;
let meta: Uint8Array;
let pin: CertificatePin;

beforeAll(async () => {
  pinned = await makeCertificate({ names: [HOST, '192.0.2.1'] });
  other = await makeCertificate();
  meta = await makeMetaCertificate(PrivateKey.generate().publicKey);
  pin = parsePin(formatPin(pinned.der));
});

describe('a pin', () => {
  test('is the SHA-256 of the whole certificate', () => {
    expect(formatPin(pinned.der)).toBe(`sha256-raw:${createHash('sha256').update(pinned.der).digest('hex')}`);
    expect(formatPin(new Uint8Array())).toBe(`sha256-raw:${EMPTY}`);
  });

  test('is read in either case', () => {
    expect(parsePin(`sha256-raw:${EMPTY.toUpperCase()}`)).toBe(EMPTY);
  });

  test.each([
    '',
    EMPTY,
    'sha256-raw:',
    `sha256-raw:${EMPTY.slice(1)}`,
    `sha256-raw:${EMPTY}0`,
    `sha256-raw: ${EMPTY.slice(1)}`,
    `sha256-raw:g${EMPTY.slice(1)}`,
    `SHA256-RAW:${EMPTY}`,
    `sha256-raw:${EMPTY}\n`,
    HOST,
  ])('is not %j', (text) => {
    expect(() => parsePin(text)).toThrow(/is not a pin; it takes sha256-raw: and 64 hexadecimal digits$/);
  });

  test('is told apart from a host name, even when malformed', () => {
    expect(isPin('sha256-raw:oops')).toBe(true);
    expect(isPin(HOST)).toBe(false);
  });
});

describe('the pinned certificate', () => {
  test('passes alone and with meta certificates around it', () => {
    checkPin(pin, [pinned.der], HOST);
    checkPin(pin, [pinned.der, meta], HOST);
    checkPin(pin, [meta, pinned.der, meta], HOST);
  });

  test('passes whatever the case of the host, and with a dot at its end', () => {
    checkPin(pin, [pinned.der], 'DERP.Example.com.');
  });

  test('passes for any IP address: behind NAT it names another one', () => {
    for (const host of ['192.0.2.1', '192.0.2.2', '2001:db8::1']) checkPin(pin, [pinned.der], host);
  });

  test('passes although its key usage makes it no authority and nobody signed it', async () => {
    const rsa = await makeCertificate({ type: 'rsa' });
    checkPin(parsePin(formatPin(rsa.der)), [rsa.der], HOST);
  });
});

describe('refused is', () => {
  const refusal = (chain: Uint8Array[], host = HOST, now?: number) => {
    try {
      checkPin(pin, chain, host, now);
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_DERP_CERTIFICATE' });
      return (error as Error).message;
    }
    return 'accepted';
  };

  test('another certificate', () => expect(refusal([other.der])).toMatch(/its hash is [0-9a-f]{64}, the pin says /));
  test('no certificate', () => expect(refusal([])).toContain('no certificate, expected'));
  test('a meta certificate alone', () => expect(refusal([meta])).toContain('no certificate, expected'));

  test('a chain, even one that holds the pinned certificate', () => {
    expect(refusal([pinned.der, other.der, meta])).toContain('2 certificates, with a pin there must be exactly one');
    expect(refusal([other.der, pinned.der])).toContain('2 certificates');
    expect(refusal([pinned.der, pinned.der])).toContain('2 certificates');
  });

  test('one that is not for the host', () => {
    expect(refusal([pinned.der], 'other.example.com')).toContain('not valid for "other.example.com"');
  });

  test('one that names the host only as its common name', async () => {
    const old = await makeCertificate({ names: [], commonName: HOST });
    expect(() => checkPin(parsePin(formatPin(old.der)), [old.der], HOST)).toThrow(/not valid for/);
  });

  test('one that has expired, or is not valid yet', () => {
    expect(refusal([pinned.der], HOST, Date.now() + 91 * DAY)).toMatch(/it expired on .* GMT$/);
    expect(refusal([pinned.der], HOST, Date.now() - 2 * DAY)).toMatch(/not valid before .* GMT; is the clock right\?$/);
  });

  test('what cannot be read', () => {
    expect(refusal([pinned.der.subarray(0, 40)])).toContain('certificate 1 of the chain is unreadable');
    expect(refusal([pinned.der, Uint8Array.of(1, 2)])).toContain('certificate 2 of the chain is unreadable');
  });
});
