import { spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readKeyPair } from '../dist/certificates/key_pair.js';
import { filesOf } from '../dist/certificates/manual.js';
import { makePair } from '../dist/certificates/self_signed.js';
import { certificateSource } from '../dist/certificates/source.js';
import { checkPin, formatPin, parsePin } from '../dist/tls/pin.js';
import { makeCertificate } from './support/certificates.js';
import { LogWatch } from './support/log_watch.js';
import { RecordingSink } from './support/recording_sink.js';
import { handshake } from './support/tls_handshake.js';

const IP = '192.0.2.1';
const DAY = 86_400_000;

let parent: string;
let folder: string;
let logger: LogWatch;

beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'derplane-self-'));
  folder = join(parent, 'a', 'b');
  logger = new LogWatch();
});
afterEach(() => rmSync(parent, { recursive: true }));

const modeOf = (path: string) => statSync(path).mode & 0o777;
const leafOf = (ip = IP) => readKeyPair(filesOf(folder, ip)).leaf;
/** OpenSSL's words for the extensions. */
const textOf = (ip = IP) =>
  spawnSync('openssl', ['x509', '-noout', '-text', '-in', filesOf(folder, ip).cert], { encoding: 'utf8' }).stdout;

async function open(hostname = IP) {
  const sink = new RecordingSink();
  const source = await certificateSource(
    { mode: 'manual', folder, hostname, acme: { ipCertificates: false } },
    sink,
    logger,
  );
  source.close();
  return { sink, source };
}

describe('for an IP address without files', () => {
  test('a pair is made, which everybody is served', async () => {
    const { sink } = await open();
    const [leaf] = await handshake(sink.served('*')!, {
      ca: sink.served('*')!.cert,
      servername: '',
      checkServerIdentity: () => undefined,
    });
    checkPin(parsePin(formatPin(leafOf().raw)), [leaf!], IP);
  });

  test('its key is ECDSA P-256 in SEC 1, 0600; the certificate 0644; folders 0700; nothing else is left', async () => {
    await open();
    const { cert, key } = filesOf(folder, IP);
    expect([cert, key, folder, join(parent, 'a')].map(modeOf)).toEqual([0o644, 0o600, 0o700, 0o700]);
    expect(readFileSync(key, 'utf8')).toMatch(/^-----BEGIN EC PRIVATE KEY-----\n/);
    expect(leafOf().publicKey.asymmetricKeyDetails).toEqual({ namedCurve: 'prime256v1' });
    expect(readdirSync(folder).sort()).toEqual([`${IP}.crt`, `${IP}.key`]);
  });

  test('the certificate names the address alone, for a year, for TLS servers, and is no authority', async () => {
    await open();
    const leaf = leafOf();
    expect(leaf.subject).toBe(`CN=${IP}`);
    expect(leaf.subjectAltName).toBe(`IP Address:${IP}`);
    expect(leaf.verify(leaf.publicKey)).toBe(true);
    expect(leaf.ca).toBe(false);
    expect(leaf.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
    const days = (Date.parse(leaf.validTo) - Date.parse(leaf.validFrom)) / DAY;
    expect([365, 366]).toContain(days);
    expect(Math.abs(Date.parse(leaf.validFrom) - Date.now())).toBeLessThan(60_000);
    const text = textOf();
    expect(text).toMatch(/Key Usage: critical\s+Digital Signature, Key Encipherment/);
    expect(text).toMatch(/Basic Constraints: critical\s+CA:FALSE/);
    expect(text).not.toMatch(/Key Identifier/);
  });

  test('serial numbers are random', async () => {
    await open();
    await open('192.0.2.2');
    expect(leafOf().serialNumber).not.toBe(leafOf('192.0.2.2').serialNumber);
    expect(leafOf().serialNumber.length).toBeGreaterThan(24);
  });

  test('IPv6 addresses have theirs', async () => {
    await open('2001:db8::1');
    expect(readdirSync(folder).sort()).toEqual(['2001db81.crt', '2001db81.key']);
    expect(leafOf('2001:db8::1').checkIP('2001:db8::1')).toBeDefined();
  });

  test('the pair is made once: the pin stays', async () => {
    const { source } = await open();
    expect((await open()).source.pin).toBe(source.pin);
    expect(logger.lines).toEqual([]);
  });

  test('relays that start at once in one folder have one pair', async () => {
    const script = `
      import { certificateSource } from ${JSON.stringify(new URL('../dist/certificates/source.js', import.meta.url).href)};
      const config = { mode: 'manual', folder: ${JSON.stringify(folder)}, hostname: ${JSON.stringify(IP)} };
      console.log((await certificateSource(config, { set() {} }, console)).pin);
    `;
    const runs = Array.from({ length: 4 }, async () => {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let output = '';
      child.stdout.on('data', (chunk) => {
        output += chunk;
      });
      expect(await once(child, 'close')).toEqual([0, null]);
      return output;
    });
    const pins = new Set(await Promise.all(runs));
    expect([...pins]).toEqual([`${formatPin(leafOf().raw)}\n`]);
  });

  test('no warning of Node is printed', async () => {
    const script = `
      import { makePair } from ${JSON.stringify(new URL('../dist/certificates/self_signed.js', import.meta.url).href)};
      await makePair(${JSON.stringify(filesOf(folder, IP))}, ${JSON.stringify(IP)}, console);
    `;
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });
});

describe('of what is there', () => {
  test('a pair is left as it is', async () => {
    const { cert, keyPem } = await makeCertificate({ names: [IP] });
    mkdirSync(folder, { recursive: true });
    const files = filesOf(folder, IP);
    writeFileSync(files.cert, cert);
    writeFileSync(files.key, keyPem);
    expect(await makePair(files, IP, logger)).toBe(false);
    expect(readFileSync(files.cert, 'utf8') + readFileSync(files.key, 'utf8')).toBe(cert + keyPem);
  });

  test.each(['ec', 'rsa', 'ed25519'] as const)('a key without its certificate gets a new one: %s', async (type) => {
    const { keyPem } = await makeCertificate({ type });
    mkdirSync(folder, { recursive: true });
    const { key } = filesOf(folder, IP);
    writeFileSync(key, keyPem);
    await open();
    expect(readFileSync(key, 'utf8')).toBe(keyPem);
    const { leaf } = readKeyPair(filesOf(folder, IP));
    expect(leaf.verify(leaf.publicKey)).toBe(true);
  });

  test('a certificate without its key is replaced with both, which is said', async () => {
    await open();
    const before = leafOf();
    rmSync(filesOf(folder, IP).key);
    await open();
    expect(leafOf().fingerprint256).not.toBe(before.fingerprint256);
    expect(logger.lines).toEqual([
      expect.stringMatching(
        /^WARN .*\.crt: its key .*\.key is missing, so both are made anew; its pin changed, put the new one into the DERP map$/,
      ),
    ]);
  });

  test('a key that cannot be used is an error, and stays', async () => {
    mkdirSync(folder, { recursive: true });
    const { key } = filesOf(folder, IP);
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const encrypted = privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' });
    writeFileSync(key, encrypted);
    await expect(open()).rejects.toThrow(
      /^can not load x509 key pair for hostname "192\.0\.2\.1": .*the key is encrypted/,
    );
    expect(readFileSync(key, 'utf8')).toBe(encrypted);
  });

  test('files of a DNS name are never made', async () => {
    await expect(open('derp.example.com')).rejects.toThrow(/ENOENT/);
    expect(readdirSync(parent)).toEqual([]);
  });
});

describe('where files cannot be made', () => {
  test('a file in the place of a folder is a clear error', async () => {
    writeFileSync(join(parent, 'a'), '');
    await expect(open()).rejects.toThrow(/192\.0\.2\.1\.key: cannot be created: (?:ENOTDIR|EEXIST): /);
  });

  const tmpfs = process.getuid?.() === 0 && spawnSync('unshare', ['-m', 'true']).status === 0;
  /** Runs in a mount namespace of its own, in which `mount` is done at the folder first. */
  const openIn = (mount: string) => {
    const script = `
      import { certificateSource } from ${JSON.stringify(new URL('../dist/certificates/source.js', import.meta.url).href)};
      const config = { mode: 'manual', folder: ${JSON.stringify(folder)}, hostname: ${JSON.stringify(IP)} };
      await certificateSource(config, { set() {} }, console).then(() => console.log('made'), (error) => console.log(error.code, error.message));
    `;
    mkdirSync(folder, { recursive: true });
    const { stdout, stderr } = spawnSync(
      'unshare',
      ['-m', 'sh', '-c', `${mount} && "$0" --input-type=module -e "$1"; ls -A ${folder}`, process.execPath, script],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    return stdout.split('\n').filter((line) => line !== '' && line !== 'filler');
  };

  test.skipIf(!tmpfs)('a full disk is a clear error, and nothing half-written is left', () => {
    const full = `mount -t tmpfs -o size=4096 none ${folder} && { head -c 4096 /dev/zero > ${folder}/filler; }`;
    expect(openIn(full)).toEqual([expect.stringMatching(/^ERR_DERP_CERTIFICATE .*\.key: cannot be created: ENOSPC: /)]);
  });

  test.skipIf(!tmpfs)('a disk that is full after the key keeps the key for the next start', () => {
    const full = `mount -t tmpfs -o size=8192 none ${folder} && { head -c 4096 /dev/zero > ${folder}/filler; }`;
    expect(openIn(full)).toEqual([
      expect.stringMatching(/^ERR_DERP_CERTIFICATE .*\.crt: cannot be created: ENOSPC: /),
      `${IP}.key`,
    ]);
  });

  test.skipIf(!tmpfs)('a read-only disk is a clear error', () => {
    expect(openIn(`mount -t tmpfs -o ro none ${folder}`)).toEqual([
      expect.stringMatching(/^ERR_DERP_CERTIFICATE .*\.key: cannot be created: EROFS: read-only file system/),
    ]);
  });
});

test('what OpenSSL reads is what Node reads', async () => {
  await open();
  expect(new X509Certificate(readFileSync(filesOf(folder, IP).cert)).checkIP(IP)).toBe(IP);
});
