/** `derplane` with certificates. */
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, connect, type PeerCertificate } from 'node:tls';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { formatPin } from '../dist/tls/pin.js';
import { makeCertificate, type TestCertificate } from './support/certificates.js';
import { ask } from './support/debug_server.js';
import { derplane, type RelayProcess, startDerplane } from './support/derplane.js';

const HOST = 'derp.example.com';
const root = mkdtempSync(join(tmpdir(), 'derplane-cli-tls-'));
afterAll(() => rmSync(root, { recursive: true }));

let folder: string;
const running: RelayProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(root, 'certs-'));
});
afterEach(async () => {
  for (const relay of running.splice(0)) {
    relay.kill('SIGKILL');
    await relay.ended;
  }
});

const base = () => ['-a', '127.0.0.1:0', '-c', join(root, 'derper.key'), '-shards', '1', '-stun=false'];
const manual = (host: string) => [...base(), '-certmode', 'manual', '-certdir', folder, '-hostname', host];

function put({ cert, keyPem }: TestCertificate, host = HOST): void {
  writeFileSync(join(folder, `${host}.crt`), cert);
  writeFileSync(join(folder, `${host}.key`), keyPem);
}

async function start(args: string[]): Promise<RelayProcess> {
  const relay = await startDerplane(args);
  running.push(relay);
  return relay;
}

/** What a TLS client gets: the leaf, or the error of the handshake. */
async function leafOf(port: number, options: ConnectionOptions): Promise<PeerCertificate> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options });
  try {
    await once(socket, 'secureConnect');
    return socket.getPeerCertificate();
  } finally {
    socket.destroy();
  }
}

/** GET over TLS, as it comes. */
async function get(port: number, path: string, options: ConnectionOptions, headers = ''): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options });
  socket.write(`GET ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${headers}\r\n`);
  let answer = '';
  for await (const chunk of socket) answer += chunk;
  return answer;
}

const portOf = (line: string) => Number(line.match(/:(\d+)$/)![1]);

describe('-certmode manual', () => {
  test('serves a DNS name to those who ask for it, and nobody else', async () => {
    const certificate = await makeCertificate();
    put(certificate);
    const relay = await start([...manual(HOST), '-http-port', '-1']);
    expect(relay.stderr()).toMatch(/derper: serving on 127\.0\.0\.1:\d+ with TLS/);
    const leaf = await leafOf(relay.port, { servername: HOST, ca: certificate.cert, rejectUnauthorized: true });
    expect(leaf.raw.equals(certificate.der)).toBe(true);
    for (const servername of ['', 'other.example.com']) {
      await expect(leafOf(relay.port, { servername })).rejects.toMatchObject({
        code: 'ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR',
      });
    }
    expect(relay.stdout()).toBe('');
  });

  test('serves pages with the headers for browsers, and the end of the certificate among the metrics', async () => {
    put(await makeCertificate());
    const relay = await start([...manual(HOST), '-http-port', '-1']);
    expect(await get(relay.port, '/', { servername: HOST })).toMatch(
      /\r\nStrict-Transport-Security: max-age=63072000; includeSubDomains\r\n/,
    );
    const varz = await get(relay.port, '/debug/varz', { servername: HOST });
    expect(varz).toMatch(/^derplane_certificate_remaining_seconds\{name="derp\.example\.com"\} 7\d{6}/m);
    expect(await get(relay.port, '/debug/', { servername: HOST })).toContain(`<b>TLS hostname:</b> ${HOST}`);
  });

  test('serves a new certificate after SIGHUP, and when its files change', async () => {
    put(await makeCertificate());
    const relay = await start([...manual(HOST), '-http-port', '-1']);
    const [second, third] = [await makeCertificate({ type: 'rsa' }), await makeCertificate({ type: 'ed25519' })];
    put(second);
    relay.kill('SIGHUP');
    await relay.line(/certificate of derp\.example\.com: read anew, valid until /);
    expect((await leafOf(relay.port, { servername: HOST })).raw.equals(second.der)).toBe(true);
    put(third);
    while (!(await leafOf(relay.port, { servername: HOST })).raw.equals(third.der)) await relay.line(/read anew/);
  });

  test('-derp=false serves pages over TLS, and no DERP', async () => {
    put(await makeCertificate());
    const relay = await start([...manual(HOST), '-http-port', '-1', '-derp=false']);
    expect(relay.stderr()).toContain('with TLS without DERP');
    for (const headers of ['', 'Upgrade: DERP\r\n']) {
      expect(await get(relay.port, '/derp', { servername: HOST }, headers)).toMatch(
        /^HTTP\/1\.1 404 [\s\S]*derp server disabled\n/,
      );
    }
    expect(await get(relay.port, '/derp/probe', { servername: HOST })).toMatch(/^HTTP\/1\.1 200 /);
  });

  test('serves TLS with -dev too', async () => {
    const config = relayConfig(parseFlags(FLAGS, ['-dev', '-certmode=manual', '-certdir=/x']), {}, false);
    expect(config).toMatchObject({ address: { port: 3340 }, tls: { certificates: { mode: 'manual', folder: '/x' } } });
  });
});

describe('an IP address as -hostname', () => {
  test('makes a certificate once, prints the line for the DERP map raw on stderr, and maps on stdout', async () => {
    const pins = [];
    for (let round = 0; round < 2; round++) {
      const relay = await start([...manual('127.0.0.1'), '-http-port', '-1', '-log-format', 'json']);
      const hint = relay
        .stderr()
        .split('\n')
        .find((line) => line.startsWith('{"Name"'))!;
      const { CertName, ...node } = JSON.parse(hint);
      expect(node).toEqual({ Name: 'custom', RegionID: 900, HostName: '127.0.0.1' });
      for (const servername of ['', HOST])
        expect(formatPin((await leafOf(relay.port, { servername })).raw)).toBe(CertName);
      await expect.poll(() => relay.stdout()).toContain('regions:\n');
      expect(relay.stdout()).toContain(`"DERPPort": ${relay.port}\n`);
      expect(relay.stdout()).toContain(`        derpport: ${relay.port}\n`);
      pins.push(CertName);
    }
    expect(pins[0]).toBe(pins[1]);
  });

  test('with a certificate of an authority prints maps without a pin', async () => {
    const issuer = await makeCertificate({ names: [], commonName: 'root', ca: true });
    put(await makeCertificate({ names: ['127.0.0.1'], issuer }), '127.0.0.1');
    const relay = await start([...manual('127.0.0.1'), '-http-port', '-1']);
    await relay.line(/Using the certificate of an authority for IP address "127\.0\.0\.1", which nodes must trust/);
    await relay.line(/^\{"Name":"custom","RegionID":900,"HostName":"127\.0\.0\.1"\}$/);
    await expect.poll(() => relay.stdout()).toContain('regions:\n');
    expect(relay.stdout()).not.toMatch(/certname/i);
  });

  test('prints maps with the port of STUN, or without STUN', async () => {
    const without = await start([...manual('127.0.0.1'), '-http-port', '-1']);
    await expect.poll(() => without.stdout()).toContain('        stunport: -1\n');
    expect(without.stdout()).toContain('"STUNPort": -1');
    const relay = await start([...manual('127.0.0.1'), '-http-port', '-1', '-stun', '-stun-port', '0']);
    const [, port] = /listening on 127\.0\.0\.1:(\d+)/.exec(await relay.line(/STUN server listening on/)) ?? [];
    await expect.poll(() => relay.stdout()).toContain(`        stunport: ${port}\n`);
    expect(relay.stdout()).toContain(`"STUNPort": ${port}`);
  });

  test('prints the map again when the certificate is another one', async () => {
    const relay = await start([...manual('127.0.0.1'), '-http-port', '-1']);
    await expect.poll(() => relay.stdout()).toContain('regions:\n');
    const next = await makeCertificate({ names: ['127.0.0.1'] });
    put(next, '127.0.0.1');
    relay.kill('SIGHUP');
    const pin = formatPin(next.der);
    await relay.line(new RegExp(`^\\{.*"CertName":"${pin}"\\}$`));
    await expect.poll(() => relay.stdout()).toContain(`        certname: "${pin}"\n`);
    expect(relay.stdout().match(/^regions:/gm)).toHaveLength(2);
  });

  test('makes a self-signed certificate anew that was made with a clock of 1970, and says that the pin changed', async () => {
    const old = await makeCertificate({
      names: ['127.0.0.1'],
      notBefore: new Date(0),
      notAfter: new Date(365 * 86_400_000),
    });
    put(old, '127.0.0.1');
    const relay = await start([...manual('127.0.0.1'), '-http-port', '-1']);
    await relay.line(
      /127\.0\.0\.1\.crt: it expired on 1971-.*, so a new one is made; its pin changed, put the new one into the DERP map/,
    );
    const leaf = await leafOf(relay.port, {});
    expect(Date.parse(leaf.valid_to)).toBeGreaterThan(Date.now());
    await expect.poll(() => relay.stdout()).toContain(`"CertName": "${formatPin(leaf.raw)}"`);
  });

  test('never logs the key', async () => {
    const relay = await start([...manual('127.0.0.1'), '-http-port', '-1', '-log-level', 'debug']);
    await leafOf(relay.port, {});
    relay.kill('SIGTERM');
    const { stdout, stderr } = await relay.ended;
    const [, secret] = readFileSync(join(folder, '127.0.0.1.key'), 'utf8').match(/-----\n(.{40})/)!;
    expect(stdout + stderr).not.toContain(secret);
  });
});

describe('-http-port', () => {
  test('serves plain HTTP beside HTTPS: the captive portal check, and the way to HTTPS', async () => {
    put(await makeCertificate());
    const relay = await start([...manual(HOST), '-http-port', '0']);
    const port = portOf(await relay.line(/derper: serving plain HTTP on /));
    expect((await ask(port, '/generate_204')).status).toBe(204);
    const { status, headers } = await ask(port, '/x', 'GET', { Host: HOST });
    expect({ status, location: headers.location }).toEqual({ status: 302, location: `https://${HOST}/x` });
    expect((await ask(port, '/debug/varz')).body).toContain('derplane_certificate_not_after_seconds');
    relay.kill('SIGTERM');
    expect(await relay.ended).toMatchObject({ code: 0 });
  });

  test('is not opened beside plain HTTP', async () => {
    const relay = await start([...base(), '-http-port', '0']);
    expect(relay.stderr()).not.toContain('plain HTTP');
  });

  test('in use is a start error that names it', async () => {
    put(await makeCertificate());
    const taken = createServer();
    taken.listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const { code, stderr } = await derplane([...manual(HOST), '-http-port', String(port)]);
    taken.close();
    expect(code).toBe(1);
    expect(stderr).toContain(`-http-port 127.0.0.1:${port}: address already in use`);
  });
});

describe('the configuration', () => {
  const config = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    relayConfig(parseFlags(FLAGS, ['-c=x', '-stun=false', ...args]), env, false).tls;

  test('has TLS with manual certificates on any port', () => {
    expect(config(['-a', '192.0.2.1:8443', '-certmode=manual', '-certdir=/d', '-hostname=h'])).toEqual({
      certificates: {
        mode: 'manual',
        folder: '/d',
        hostname: 'h',
        acme: { directory: '', email: '', eab: { kid: '', key: '' }, ipCertificates: false, httpChallenge: true },
      },
      plainAddress: { flag: '-http-port', host: '192.0.2.1', port: 80 },
    });
    expect(config(['-a', ':8443'])).toBeUndefined();
  });

  test('has TLS with certificates by ACME on port 443', () => {
    const args = ['-acme-email=e', '-acme-eab-kid=i', '-acme-eab-key=k', '-acme-directory=https://d/', '-http-port=-1'];
    for (const port of [':443', ':https']) {
      expect(config(['-a', port, '-certmode=gcp', '-certdir=/d', '-hostname=h', ...args])).toEqual({
        certificates: {
          mode: 'gcp',
          folder: '/d',
          hostname: 'h',
          acme: {
            directory: 'https://d/',
            email: 'e',
            eab: { kid: 'i', key: 'k' },
            ipCertificates: false,
            httpChallenge: false,
          },
        },
        plainAddress: undefined,
      });
    }
    expect(config(['-certdir=/d', '-acme-ip-certs'])).toMatchObject({
      certificates: { mode: 'letsencrypt', acme: { ipCertificates: true } },
    });
  });

  test.each([
    [{ XDG_CACHE_HOME: '/c', HOME: '/h' }, '/c/tailscale/derper-certs'],
    [{ HOME: '/h' }, '/h/.cache/tailscale/derper-certs'],
  ])('has its folder by the rule of Go: %j', (env, wanted) => {
    expect(config(['-certmode=manual'], env)).toMatchObject({ certificates: { folder: wanted } });
  });

  test.each([
    [['-certmode=manual'], {}, 'missing required --certdir flag'],
    [['-certmode=manual'], { XDG_CACHE_HOME: 'relative', HOME: '/h' }, 'missing required --certdir flag'],
    [['-certmode=manual', '-certdir='], { HOME: '/h' }, 'missing required --certdir flag'],
    [['-certmode=manual', '-certdir=/d', '-hostname='], {}, '-hostname "": not a DNS name'],
    [['-certmode=manual', '-certdir=/d', '-acme-ip-certs'], {}, '--acme-ip-certs requires --certmode=letsencrypt'],
    [['-certmode=gcp', '-certdir=/d', '-acme-ip-certs'], {}, '--acme-ip-certs requires --certmode=letsencrypt'],
    [['-certmode=other'], { HOME: '/h' }, 'derper: can not start cert provider: unsupport cert mode: "other"'],
  ])('%j is a start error', (args, env, message) => {
    expect(() => config(args, env)).toThrow(message);
  });
});

describe('a start error of one line, exit code 1:', () => {
  const failing = async (host = HOST) => {
    const { code, stdout, stderr } = await derplane([...manual(host), '-http-port', '-1']);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(
      /^\S+ ERROR derper: can not start cert provider: can not load x509 key pair for hostname "[^"\n]*": [^\n]*\n$/,
    );
    return stderr;
  };

  test('a missing file', async () => expect(await failing()).toContain(`${folder}/${HOST}.crt: ENOENT`));

  test('a key of another certificate', async () => {
    put({ ...(await makeCertificate()), keyPem: (await makeCertificate()).keyPem });
    expect(await failing()).toContain('is not the key of the first certificate');
  });

  test('a certificate of another name', async () => {
    put(await makeCertificate({ names: ['x.example.com'] }));
    expect(await failing()).toContain(`cert invalid for hostname "${HOST}", valid for DNS:x.example.com`);
  });

  test('no certificate at all', async () => {
    put({ ...(await makeCertificate()), cert: 'hello' });
    expect(await failing()).toContain('no certificate in it');
  });

  test.each([
    [['-hostname', '192.0.2.1'], '--acme-ip-certs'],
    [['-hostname', '192.0.2.1', '-certmode', 'gcp'], 'requires --hostname to be a DNS name'],
    [['-hostname', HOST, '-certmode', 'gcp'], 'requires --acme-eab-kid and --acme-eab-key'],
    [['-hostname', HOST, '-acme-directory', 'http://acme.example.com/'], 'must be an https:// URL'],
  ])('ACME: %j', async (args, message) => {
    const { code, stderr } = await derplane([...base(), '-a', '127.0.0.1:443', '-certdir', folder, ...args]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^\S+ ERROR derper: can not start cert provider: [^\n]*\n$/);
    expect(stderr).toContain(message);
  });

  test('a folder that is a file', async () => {
    rmSync(folder, { recursive: true });
    writeFileSync(folder, '');
    expect(await failing('127.0.0.1')).toContain('cannot be created: ');
    rmSync(folder);
    mkdirSync(folder);
  });
});
