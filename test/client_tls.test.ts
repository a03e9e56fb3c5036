/** The client over TLS: whom it believes. */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates, type TLSSocket } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { PrivateKey, RelayClient, type RelayClientOptions } from 'derplane';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { formatPin } from '../dist/tls/pin.js';
import { type CertificateWish, makeCertificate, makeChain, type TestCertificate } from './support/certificates.js';
import { FakeRelay } from './support/fake_relay.js';

const DAY = 86_400_000;
const withCode = (code: string) => expect.objectContaining({ name: 'DerpError', code });

const relays: FakeRelay[] = [];
const clients: RelayClient[] = [];
let root: TestCertificate;

beforeAll(async () => {
  root = await makeCertificate({ names: [], commonName: 'our root', ca: true });
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const relay of relays.splice(0)) await relay.close();
});

/** A relay that presents `certificates`, the leaf first. */
async function present(...certificates: TestCertificate[]): Promise<FakeRelay> {
  const tls = { cert: certificates.map(({ cert }) => cert).join(''), key: certificates[0]!.keyPem };
  const relay = await FakeRelay.start({ tls });
  relays.push(relay);
  return relay;
}

function clientOf(relay: FakeRelay, options: RelayClientOptions, host = 'localhost'): RelayClient {
  const client = new RelayClient(PrivateKey.generate(), `https://${host}:${relay.port}/derp`, options);
  clients.push(client);
  return client;
}

/** Connects, and tells by what name the relay was asked for. */
async function expectTrust(relay: FakeRelay, options: RelayClientOptions, host?: string): Promise<string | undefined> {
  const [, { socket }] = await Promise.all([clientOf(relay, options, host).connect(), relay.client()]);
  return (socket as TLSSocket).servername || undefined;
}

/** The message of a refusal, in which the URL stands. */
async function expectRefusal(relay: FakeRelay, options: RelayClientOptions, host = 'localhost'): Promise<string> {
  const connecting = clientOf(relay, options, host).connect();
  await expect(connecting).rejects.toThrow(withCode('ERR_DERP_CERTIFICATE'));
  const { message } = await connecting.then(
    () => new Error('connected'),
    (error: Error) => error,
  );
  const url = `https://${host}:${relay.port}/derp: `;
  expect(message.slice(0, url.length)).toBe(url);
  expect(message).not.toContain('\n');
  return message.slice(url.length);
}

const leafOf = (wish: CertificateWish) => makeCertificate({ issuer: root, ...wish });

describe('a certificate', () => {
  it('for the host passes, and the host is asked for', async () => {
    const relay = await present(await leafOf({ names: ['other.example', 'LocalHost'] }));
    expect(await expectTrust(relay, { ca: root.cert })).toBe('localhost');
  });

  it('for the IP address passes, and none is asked for', async () => {
    const relay = await present(await leafOf({ names: ['127.0.0.1'] }));
    expect(await expectTrust(relay, { ca: root.cert }, '127.0.0.1')).toBeUndefined();
  });

  it('for an IPv6 address passes', async () => {
    const { cert, keyPem: key } = await leafOf({ names: ['::1'] });
    const relay = await FakeRelay.start({ tls: { cert, key }, host: '::1' });
    relays.push(relay);
    expect(await expectTrust(relay, { ca: root.cert }, '[::1]')).toBeUndefined();
  });

  it.each<[string, CertificateWish, string]>([
    ['another name', { names: ['other.example'] }, 'localhost'],
    ['an IP address, not the name', { names: ['127.0.0.1'] }, 'localhost'],
    ['the name, not the IP address', { names: ['localhost'] }, '127.0.0.1'],
    ['another IP address', { names: ['127.0.0.2'] }, '127.0.0.1'],
    ['the IP address written as a name', { names: ['127.0.0.1x'] }, '127.0.0.1'],
    ['the name as common name only', { names: [], commonName: 'localhost' }, 'localhost'],
    ['a longer name', { names: ['a.localhost'] }, 'localhost'],
    ['every name', { names: ['*'] }, 'localhost'],
  ])('for %s is refused', async (_what, wish, host) => {
    const message = await expectRefusal(await present(await leafOf(wish)), { ca: root.cert }, host);
    expect(message).toMatch(new RegExp(`mismatch: it is not for "${host}"$`));
  });

  it('with a wildcard is for one label', async () => {
    const relay = await present(await leafOf({ names: ['*.example.com'] }));
    await expectTrust(relay, { ca: root.cert, certName: 'derp1.example.com' });
    await expectRefusal(relay, { ca: root.cert, certName: 'a.derp1.example.com' });
    await expectRefusal(relay, { ca: root.cert, certName: 'example.com' });
    const partial = await present(await leafOf({ names: ['derp*.example.com'] }));
    await expectRefusal(partial, { ca: root.cert, certName: 'derp1.example.com' });
  });

  it('that is out of date is refused', async () => {
    const names = ['localhost'];
    const old = await leafOf({
      names,
      notBefore: new Date(Date.now() - 9 * DAY),
      notAfter: new Date(Date.now() - DAY),
    });
    expect(await expectRefusal(await present(old), { ca: root.cert })).toContain('certificate has expired');
    const early = await leafOf({ names, notBefore: new Date(Date.now() + DAY) });
    expect(await expectRefusal(await present(early), { ca: root.cert })).toMatch(
      /not yet valid: is the clock right\?$/,
    );
  });

  it('by a stranger is refused, with advice', async () => {
    const leaf = await leafOf({ names: ['localhost'] });
    const stranger = await makeCertificate({ names: [], commonName: 'stranger', ca: true });
    expect(await expectRefusal(await present(leaf), { ca: stranger.cert })).toMatch(
      /SSL_CERT_FILE, NODE_EXTRA_CA_CERTS/,
    );
    expect(await expectRefusal(await present(leaf), {})).toContain('unable to get local issuer certificate');
    const own = await makeCertificate({ names: ['localhost'] });
    expect(await expectRefusal(await present(own), { ca: root.cert })).toContain('self-signed certificate');
    const namesake = await makeCertificate({ names: [], commonName: 'our root', ca: true });
    expect(await expectRefusal(await present(leaf), { ca: namesake.cert })).toContain('certificate signature failure');
  });

  it('of its own passes when it is the `ca`', async () => {
    const own = await makeCertificate({ names: ['localhost'] });
    await expectTrust(await present(own), { ca: own.cert });
  });

  it('passes with the intermediates that come along, and not without', async () => {
    const chain = await makeChain({ names: ['localhost'] });
    await expectTrust(await present(chain.leaf, chain.intermediate), { ca: chain.root.cert });
    await expectTrust(await present(chain.leaf, chain.intermediate), { ca: `${root.cert}${chain.root.cert}` });
    const message = await expectRefusal(await present(chain.leaf), { ca: chain.root.cert });
    expect(message).toContain('unable to get local issuer certificate');
  });

  it('passes when an intermediate is trusted', async () => {
    const chain = await makeChain({ names: ['localhost'] });
    await expectTrust(await present(chain.leaf), { ca: chain.intermediate.cert });
    await expectTrust(await present(chain.leaf, chain.intermediate), { ca: chain.intermediate.cert });
  });

  it('that no authority issued is refused', async () => {
    const noAuthority = await leafOf({ names: [], commonName: 'no authority' });
    const leaf = await makeCertificate({ names: ['localhost'], issuer: noAuthority });
    await expectRefusal(await present(leaf, noAuthority), { ca: root.cert });
  });

  it.each(['ec', 'rsa', 'ed25519'] as const)('may have a key of type %s', async (type) => {
    await expectTrust(await present(await leafOf({ type, names: ['localhost'] })), { ca: root.cert });
  });

  it('is not looked at further when it comes with one that is none', async () => {
    const meta = await makeCertificate({ names: [], commonName: 'derpkey-of-nobody' });
    await expectTrust(await present(await leafOf({ names: ['localhost'] }), meta), { ca: root.cert });
  });
});

describe('certName', () => {
  it('is verified in place of the host, which is asked for all the same', async () => {
    const relay = await present(await leafOf({ names: ['derp1.example.com'] }));
    expect(await expectTrust(relay, { ca: root.cert, certName: 'derp1.example.com' })).toBe('localhost');
    expect(await expectTrust(relay, { ca: root.cert, certName: 'derp1.example.com' }, '127.0.0.1')).toBeUndefined();
    expect(await expectRefusal(relay, { ca: root.cert, certName: 'derp2.example.com' })).toContain('derp2.example.com');
  });

  it('may be an IP address', async () => {
    const relay = await present(await leafOf({ names: ['192.0.2.1'] }));
    expect(await expectTrust(relay, { ca: root.cert, certName: '192.0.2.1' })).toBe('localhost');
    await expectRefusal(relay, { ca: root.cert, certName: '192.0.2.2' });
  });

  it('that is empty is none', async () => {
    const relay = await present(await leafOf({ names: ['localhost'] }));
    await expectTrust(relay, { ca: root.cert, certName: '' });
    await expectRefusal(relay, { ca: root.cert, certName: '' }, '127.0.0.1');
    await expectRefusal(relay, { certName: '' });
  });
});

describe('a pin', () => {
  const pinOf = ({ der }: TestCertificate) => ({ certName: formatPin(der) });

  it('is all that a self-signed certificate needs', async () => {
    const own = await makeCertificate({ names: ['localhost'] });
    const relay = await present(own);
    expect(await expectTrust(relay, pinOf(own))).toBe('localhost');
    await expectTrust(relay, { certName: formatPin(own.der).toUpperCase().replace('SHA256-RAW', 'sha256-raw') });
    // Behind NAT it names another address.
    expect(await expectTrust(relay, pinOf(own), '127.0.0.1')).toBeUndefined();
  });

  it('does not count the meta certificate', async () => {
    const own = await makeCertificate({ names: ['localhost'] });
    const meta = await makeCertificate({ names: [], commonName: `derpkey${'0a'.repeat(32)}`, serialNumber: '0100' });
    await expectTrust(await present(own, meta), pinOf(own));
  });

  it.each<[string, CertificateWish, RegExp]>([
    ['that has expired', { notAfter: new Date(Date.now() - 1_000) }, /it expired on /],
    ['that is not valid yet', { notBefore: new Date(Date.now() + DAY) }, /is the clock right\?$/],
    ['for another host', { names: ['other.example'] }, /it is not valid for "localhost"$/],
  ])('does not help a certificate %s', async (_what, wish, message) => {
    const own = await makeCertificate({ names: ['localhost'], ...wish });
    expect(await expectRefusal(await present(own), pinOf(own))).toMatch(message);
  });

  it('of another certificate refuses', async () => {
    const [own, other] = [await leafOf({ names: ['localhost'] }), await leafOf({ names: ['localhost'] })];
    const message = await expectRefusal(await present(own), { ...pinOf(other), ca: root.cert });
    expect(message).toMatch(/its hash is [0-9a-f]{64}, the pin says [0-9a-f]{64}$/);
  });

  it('refuses two certificates, in either order', async () => {
    const [own, other] = [await makeCertificate({ names: ['localhost'] }), root];
    expect(await expectRefusal(await present(own, other), pinOf(own))).toContain('2 certificates');
    expect(await expectRefusal(await present(own, other), pinOf(other))).toContain('2 certificates');
  });
});

describe('ca', () => {
  it.each(['', ' \n', 'hello', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'])(
    'must have a certificate: %j has none',
    (ca) => {
      const make = () => new RelayClient(PrivateKey.generate(), 'https://localhost/derp', { ca });
      expect(make).toThrow(withCode('ERR_DERP_CERTIFICATE'));
      expect(make).toThrow(/^ca: (there is no PEM|holds no) certificate/);
    },
  );
});

describe('roots', () => {
  const program = fileURLToPath(new URL('support/tls_dial_child.mjs', import.meta.url));
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-roots-'));
    return () => rm(folder, { recursive: true });
  });

  /** What became of dialling a relay that `root` certified, in a program with this environment. */
  async function dial(env: NodeJS.ProcessEnv, relay?: FakeRelay): Promise<{ code?: string; message?: string }> {
    const dialled = relay ?? (await present(await leafOf({ names: ['localhost'] })));
    const ours = { ...process.env, SSL_CERT_FILE: '', NODE_EXTRA_CA_CERTS: '', ...env };
    const args = [program, JSON.stringify([[`https://localhost:${dialled.port}/derp`, {}]])];
    const running = promisify(execFile)(process.execPath, args, { env: ours, timeout: 30_000 });
    // It gets no client if the certificate is refused.
    void dialled.client().catch(() => undefined);
    const lines = (await running).stdout.trim().split('\n');
    expect(lines).toHaveLength(1);
    return JSON.parse(lines[0]!);
  }

  async function file(name: string, text: string): Promise<string> {
    const path = join(folder, name);
    await writeFile(path, text);
    return path;
  }

  it('are the system bundle, or SSL_CERT_FILE in its place, and NODE_EXTRA_CA_CERTS besides', async () => {
    const stranger = await makeCertificate({ names: [], commonName: 'stranger', ca: true });
    const [ours, theirs] = [await file('ours.pem', root.cert), await file('theirs.pem', `# a\n${stranger.cert}`)];
    expect(await dial({ SYSTEM_BUNDLE: ours })).toEqual({});
    expect(await dial({ SSL_CERT_FILE: ours })).toEqual({});
    expect(await dial({ NODE_EXTRA_CA_CERTS: ours })).toEqual({});
    expect(await dial({ SSL_CERT_FILE: theirs, NODE_EXTRA_CA_CERTS: ours })).toEqual({});
    expect(await dial({ SYSTEM_BUNDLE: ours, NODE_EXTRA_CA_CERTS: theirs })).toEqual({});
    expect(await dial({ SYSTEM_BUNDLE: ours, SSL_CERT_FILE: theirs })).toMatchObject({ code: 'ERR_DERP_CERTIFICATE' });
  });

  it('are always those of Node, but not with `ca`', async () => {
    // Nobody here can sign with the key of a real root; that a signature was checked at all shows that it is known.
    const real = rootCertificates.find((pem) => /ISRG Root X2/.test(new X509Certificate(pem).subject))!;
    const impostor = { ...root, cert: real };
    const relay = await present(await makeCertificate({ names: ['localhost'], issuer: impostor }));
    const bundle = await file('root.pem', root.cert);
    expect((await dial({ SSL_CERT_FILE: bundle }, relay)).message).toContain('certificate signature failure');
    expect(await expectRefusal(relay, { ca: root.cert })).toMatch(
      /self-signed certificate in|unable to get local issuer/,
    );
  });

  it.each(['SSL_CERT_FILE', 'NODE_EXTRA_CA_CERTS'])('that %s names must be readable', async (variable) => {
    const message = async (path: string) => {
      const { code, message } = await dial({ [variable]: path });
      expect(code).toBe('ERR_DERP_CERTIFICATE');
      return message;
    };
    const prefix = /^https:\/\/localhost:\d+\/derp: /.source + variable;
    const missing = join(folder, 'none.pem');
    expect(await message(missing)).toMatch(
      new RegExp(`${prefix}: ENOENT: no such file or directory, open '${missing}'$`),
    );
    expect(await message(folder)).toMatch(new RegExp(`${prefix}: EISDIR: `));
    const empty = await file('empty.pem', 'no certificate\n');
    expect(await message(empty)).toMatch(new RegExp(`${prefix}: no PEM certificate in ${empty}$`));
  });
});
