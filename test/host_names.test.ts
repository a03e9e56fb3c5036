/** One spelling for each host, wherever a name comes from. */

import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { DerpError, PrivateKey, RelayClient, Server, TlsContext } from 'derplane';
import { afterAll, describe, expect, test } from 'vitest';
import { canonicalHost, hostOfHeader } from '../dist/host_name.js';
import { makeCertificate } from './support/certificates.js';
import { derplane, startDerplane } from './support/derplane.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-names-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('a host', () => {
  test.each([
    ['derp.example.com', 'derp.example.com'],
    ['derp.example.com.', 'derp.example.com'],
    ['DERP.Example.COM', 'derp.example.com'],
    ['relay', 'relay'],
    ['_derp.example.com', '_derp.example.com'],
    ['dérp.example.com', 'xn--drp-bma.example.com'],
    ['DÉRP.example.com.', 'xn--drp-bma.example.com'],
    ['xn--drp-bma.example.com', 'xn--drp-bma.example.com'],
    ['192.0.2.1', '192.0.2.1'],
    ['2001:DB8:0::1', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['[::ffff:c000:201]', '192.0.2.1'],
  ])('%s is spelled %s', (text, host) => {
    expect(canonicalHost(text)).toBe(host);
  });

  test.each([
    '',
    '.',
    '..',
    'a..b',
    '.example.com',
    'example.com..',
    'a b',
    'a/b',
    'a:80',
    'a@b',
    'a%20b',
    'a%b',
    '-a.example.com',
    'a-.example.com',
    '*.example.com',
    '127.1',
    '0x7f.1',
    '1.2.3',
    '1.2.3.4.',
    '256.1.1.1',
    '[192.0.2.1]',
    '[x]',
    '[::1',
    'fe80::1%eth0',
    `${'a'.repeat(64)}.example.com`,
    `${'a.'.repeat(127)}aa`,
    'a\0b',
    'a\nb',
  ])('is not %j', (text) => {
    expect(canonicalHost(text)).toBeUndefined();
  });

  test.each([
    ['Example.com', 'example.com'],
    ['example.com.:80', 'example.com'],
    ['example.com:', 'example.com'],
    ['[2001:DB8::1]:80', '2001:db8::1'],
    ['[::1]', '::1'],
    ['192.0.2.1:443', '192.0.2.1'],
    ['::1', undefined],
    ['a:b', undefined],
    ['', undefined],
  ])('of the Host header "%s" is %s', (header, host) => {
    expect(hostOfHeader(header)).toBe(host);
  });
});

/** The subject of the certificate that a client with this SNI gets. */
async function subjectFor(port: number, servername: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, servername, rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect');
    return socket.getPeerCertificate().subjectaltname ?? '';
  } finally {
    socket.destroy();
  }
}

describe('-hostname', () => {
  test.each([
    ['derp.example.com.', 'derp.example.com'],
    ['DERP.Example.Com', 'DERP.Example.Com'],
    ['DERP.Example.Com', 'derp.example.com'],
    ['dérp.example.com', 'xn--drp-bma.example.com'],
  ])('%s serves handshakes for it, with the files named %s', async (hostname, file) => {
    const sni = canonicalHost(hostname)!;
    const { cert, keyPem } = await makeCertificate({ names: [sni] });
    const certdir = mkdtempSync(join(folder, 'certs-'));
    writeFileSync(join(certdir, `${file}.crt`), cert);
    writeFileSync(join(certdir, `${file}.key`), keyPem);
    const key = join(folder, 'derper.key');
    const tls = ['-certmode', 'manual', '-certdir', certdir, '-hostname', hostname, '-http-port', '-1'];
    const relay = await startDerplane(['-a', '127.0.0.1:0', '-c', key, '-shards', '1', '-stun=false', ...tls]);
    try {
      for (const name of [sni, sni.toUpperCase()]) expect(await subjectFor(relay.port, name)).toContain(sni);
    } finally {
      relay.kill('SIGKILL');
      await relay.ended;
    }
  });

  test.each(['', 'a b', 'https://derp.example.com', 'derp.example.com:443', '1.2.3'])(
    'cannot be %j',
    async (hostname) => {
      const tls = ['-certmode', 'manual', '-certdir', folder, '-hostname', hostname];
      const { code, stderr } = await derplane(['-a', '127.0.0.1:0', '-c', join(folder, 'derper.key'), ...tls]);
      expect(code).toBe(1);
      expect(stderr).toContain(`-hostname ${JSON.stringify(hostname)}: not a DNS name or IP address`);
    },
  );
});

describe('TlsContext', () => {
  test.each(['', 'a b', '*.example.com', 'derp.example.com:443', 'fe80::1%eth0'])(
    'refuses the name %j',
    async (name) => {
      const { cert, keyPem: key } = await makeCertificate();
      const context = new TlsContext();
      const badName = expect.objectContaining({
        code: 'ERR_DERP_BAD_OPTION',
        message: expect.stringContaining(JSON.stringify(name)),
      });
      for (const call of [
        () => context.set(name, [{ cert, key }]),
        () => context.setChallenge(name, { cert, key }),
        () => context.delete(name),
        () => context.expect(name),
      ]) {
        expect(call).toThrow(DerpError);
        expect(call).toThrow(badName);
      }
    },
  );
});

describe('a client verifies the one spelling of its relay', () => {
  test.each([
    ['localhost', 'LOCALHOST'],
    ['LocalHost.', 'localhost'],
    ['127.0.0.1', '[::ffff:127.0.0.1]'],
    ['::ffff:127.0.0.1', '127.0.0.1'],
  ])('where TLS is served for %s and the URL says %s', async (served, host) => {
    const { cert, keyPem: key } = await makeCertificate({ names: [canonicalHost(served)!] });
    const tls = new TlsContext();
    tls.set(served, [{ cert, key }]);
    const relay = new Server(PrivateKey.generate(), { shards: 1 });
    try {
      const { port } = await relay.listen({ host: '127.0.0.1', port: 0, tls });
      const client = new RelayClient(PrivateKey.generate(), `https://${host}:${port}/derp`, { ca: cert });
      await client.connect();
      client.close();
    } finally {
      await relay.close();
    }
  });
});
