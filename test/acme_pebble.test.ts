import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { AcmeRig, HOST } from './support/acme_rig.js';
import {
  BUILD_TIMEOUT,
  buildPebble,
  EAB,
  type Pebble,
  type PebbleOptions,
  pebbleMissing,
  startPebble,
} from './support/pebble.js';
import { TestClock } from './support/test_clock.js';

const DAY = 86_400_000;

describe.skipIf(pebbleMissing)('against Pebble', () => {
  let rig: AcmeRig;
  let pebble: Pebble;

  beforeAll(buildPebble, BUILD_TIMEOUT);

  beforeEach(async () => {
    rig = await AcmeRig.make();
  });

  afterEach(async () => {
    await rig.close();
    await pebble.close();
  });

  const start = async (options: Partial<PebbleOptions> = {}) => {
    pebble = await startPebble({ httpPort: rig.httpPort, tlsPort: rig.sink.port, ...options });
    return { directory: pebble.directory, env: { SSL_CERT_FILE: pebble.rootFile } };
  };

  test("a certificate is asked for at start, validated by TLS-ALPN-01, served, and kept in derper's files", async () => {
    const source = await rig.source(await start());
    source.start();
    const peer = await rig.sink.handshake(HOST);
    expect(peer.subjectaltname).toBe(`DNS:${HOST}`);
    await rig.log.line(/got cert for derp\.example\.com/);
    expect(rig.requests).toEqual([]);
    expect(rig.sink.challenges.size).toBe(0);
    await source.close();
    expect((await readdir(rig.folder)).sort()).toEqual(['acme_account+key', HOST]);
    const kept = await readFile(rig.path(HOST), 'utf8');
    expect(kept.match(/-----BEGIN [A-Z ]+-----/g)).toEqual([
      '-----BEGIN EC PRIVATE KEY-----',
      '-----BEGIN CERTIFICATE-----',
      '-----BEGIN CERTIFICATE-----',
    ]);
    expect((await stat(rig.path(HOST))).mode & 0o777).toBe(0o600);
    expect((await stat(rig.path('acme_account+key'))).mode & 0o777).toBe(0o600);
    expect(source.expiry()).toEqual([
      { name: HOST, notBefore: new Date(peer.valid_from), notAfter: new Date(peer.valid_to) },
    ]);
  });

  test('when TLS-ALPN-01 fails, HTTP-01 is tried with a new order', async () => {
    rig.sink.hidesChallenges = true;
    const source = await rig.source(await start());
    source.start();
    await rig.sink.handshake(HOST);
    expect(rig.requests[0]).toMatch(/^\/\.well-known\/acme-challenge\/[\w-]+$/);
    expect(pebble.log().match(/Added order /g)).toHaveLength(2);
    await rig.log.line(/got cert/);
  });

  test('without a plain port only TLS-ALPN-01 is tried, and its failure says why', async () => {
    rig.sink.hidesChallenges = true;
    const source = await rig.source({ ...(await start()), httpChallenge: false });
    source.start();
    await expect(rig.sink.handshake(HOST)).rejects.toThrow();
    const line = await rig.log.line(/getting cert for derp\.example\.com/);
    expect(line).toMatch(
      /^ERROR .*tls-alpn-01: (connection|tls|unauthorized|incorrectResponse): .*\(next attempt in 1 min\)$/,
    );
    expect(rig.requests).toEqual([]);
  });

  test('both challenges fail: the reasons of both are told, and handshakes fail at once', async () => {
    rig.sink.hidesChallenges = true;
    const source = await rig.source({ ...(await start({ httpPort: 1 })) });
    source.start();
    await expect(rig.sink.handshake(HOST)).rejects.toThrow();
    expect(await rig.log.line(/getting cert/)).toMatch(/tls-alpn-01: .*; http-01: .*connection/);
    await expect(rig.sink.handshake(HOST)).rejects.toThrow();
  });

  test('a server that refuses one good nonce in seven gives a certificate all the same', async () => {
    const source = await rig.source(await start({ nonceReject: 15 }));
    source.start();
    await rig.sink.handshake(HOST);
  });

  test('gcp binds its account; the key is in no log', async () => {
    const source = await rig.source({
      ...(await start({ requireEab: true })),
      mode: 'gcp',
      email: 'admin@example.com',
      eab: EAB,
    });
    source.start();
    await rig.sink.handshake(HOST);
    expect(rig.log.lines.join('\n')).not.toContain(EAB.key);
  });

  test('a server that wants an account binding says so in the log, with what to do', async () => {
    const source = await rig.source(await start({ requireEab: true }));
    source.start();
    expect(await rig.log.line(/getting cert/)).toMatch(/registering the account: .*-acme-eab-kid/);
  });

  test('a wrong binding key is told, and not shown', async () => {
    const key = Buffer.alloc(32, 7).toString('base64');
    const source = await rig.source({
      ...(await start({ requireEab: true })),
      mode: 'gcp',
      email: 'admin@example.com',
      eab: { kid: EAB.kid, key },
    });
    source.start();
    expect(await rig.log.line(/getting cert/)).toMatch(/registering the account: \w+: /);
    expect(rig.log.lines.join('\n')).not.toContain(key);
  });

  test('an address gets a short-lived certificate over HTTP-01 when the first client without SNI comes', async () => {
    const source = await rig.source({ ...(await start()), hostname: '127.0.0.1', ipCertificates: true });
    source.start();
    const peer = await rig.sink.handshake();
    expect(peer.subjectaltname).toBe('IP Address:127.0.0.1');
    expect(Date.parse(peer.valid_to) - Date.parse(peer.valid_from)).toBeLessThan(7 * DAY);
    expect((await rig.sink.handshake('behind.nat')).fingerprint256).toBe(peer.fingerprint256);
    expect(rig.requests.length).toBeGreaterThan(0);
    expect(await rig.log.line(/got cert/)).toContain('{"Name":"custom","RegionID":900,"HostName":"127.0.0.1"}');
    await source.close();
    expect((await readdir(rig.folder)).sort()).toEqual(['127.0.0.1.crt', '127.0.0.1.key', 'acme-account.key']);
    expect((await stat(rig.path('127.0.0.1.key'))).mode & 0o777).toBe(0o600);
    expect((await stat(rig.path('127.0.0.1.crt'))).mode & 0o777).toBe(0o644);
    expect(await readFile(rig.path('127.0.0.1.key'), 'utf8')).toMatch(/^-----BEGIN EC PRIVATE KEY-----/);
  });

  test('host and addresses have certificates of their own, side by side', async () => {
    const source = await rig.source({ ...(await start()), ipCertificates: true });
    source.start();
    const [host, address] = await Promise.all([rig.sink.handshake(HOST), rig.sink.handshake()]);
    expect([host.subjectaltname, address.subjectaltname]).toEqual([`DNS:${HOST}`, 'IP Address:127.0.0.1']);
    expect(source.expiry().map(({ name }) => name)).toEqual([HOST, '127.0.0.1']);
  });

  test('a kept certificate is used without asking anybody', async () => {
    const options = await start();
    const first = await rig.source(options);
    first.start();
    const { fingerprint256 } = await rig.sink.handshake(HOST);
    await rig.log.line(/got cert/);
    await first.close();
    rig.sink.certificates.clear();
    const second = await rig.source({ ...options, directory: 'https://127.0.0.1:1/' });
    second.start();
    expect((await rig.sink.handshake(HOST)).fingerprint256).toBe(fingerprint256);
    await rig.log.line(/loaded cached cert/);
  });

  test('a certificate is renewed when a third of its life is left, with the old one served until then', async () => {
    const clock = new TestClock();
    const source = await rig.source({ ...(await start()), clock });
    source.start();
    const first = await rig.sink.handshake(HOST);
    await rig.log.line(/got cert/);
    await clock.sleeping();
    const life = Date.parse(first.valid_to) - Date.parse(first.valid_from);
    const renewal = Date.parse(first.valid_from) + life - Math.min(life / 3, 30 * DAY);
    clock.pass(renewal - clock.now() - 60_000);
    expect(rig.sink.calls.filter(({ method }) => method === 'set')).toHaveLength(1);
    clock.pass(2 * 3_600_000);
    expect((await rig.sink.handshake(HOST)).fingerprint256).toBe(first.fingerprint256);
    await rig.log.line(/got cert/, 2);
    const second = await rig.sink.handshake(HOST);
    expect(second.fingerprint256).not.toBe(first.fingerprint256);
    await clock.sleeping();
    const kept = await readFile(rig.path(HOST), 'utf8');
    expect(new X509Certificate(kept.slice(kept.indexOf('-----BEGIN CERT'))).fingerprint256).toBe(second.fingerprint256);
    expect(pebble.log().match(/There are now \d+ accounts/g)).toEqual(['There are now 1 accounts']);
  });

  test.each([
    ['a name that the server refuses', { blockedDomains: [HOST] }, /new order: rejectedIdentifier: /],
    ['DNS that fails', {}, /tls-alpn-01: .*not resolve.*; http-01: .*not resolve/],
  ])('%s: one line says so', async (_what, options, expected) => {
    const source = await rig.source(await start(options));
    await pebble.failDns(HOST);
    source.start();
    expect(await rig.log.line(/getting cert/)).toMatch(expected);
  });

  test('the root of a private server may be named by NODE_EXTRA_CA_CERTS; without it the line says what to do', async () => {
    const { directory } = await start();
    const stranger = await rig.source({ directory, env: {} });
    stranger.start();
    expect(await rig.log.line(/getting cert/)).toMatch(/not trusted \(\w+\); .*SSL_CERT_FILE/);
    await stranger.close();
    const source = await rig.source({ directory, env: { NODE_EXTRA_CA_CERTS: pebble.rootFile } });
    source.start();
    await rig.sink.handshake(HOST);
  });

  test('a proxy of the environment is used', async () => {
    const targets: string[] = [];
    const proxy = createServer().on('connect', ({ url = '' }, client) => {
      targets.push(url);
      const [host, port] = url.split(':');
      const server = connect(Number(port), host, () => client.write('HTTP/1.1 200 OK\r\n\r\n'));
      client.pipe(server).pipe(client);
      for (const end of [client, server]) end.on('error', () => {});
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    vi.stubEnv('HTTPS_PROXY', `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`);
    try {
      const source = await rig.source(await start());
      source.start();
      await rig.sink.handshake(HOST);
      expect(targets).toContain(new URL(pebble.directory).host);
    } finally {
      vi.unstubAllEnvs();
      proxy.close();
    }
  });
});
