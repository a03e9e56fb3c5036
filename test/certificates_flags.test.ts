/** `-cert`, `-key` and `-sni`: which certificate is served, and to whom. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { forAnyName } from '../dist/certificates/any_name.js';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { makeCertificate, type TestCertificate } from './support/certificates.js';
import { derplane, type RelayProcess, startDerplane } from './support/derplane.js';

const HOST = 'derp.example.com';
const hex = ({ der }: TestCertificate) => Buffer.from(der).toString('hex');
const root = mkdtempSync(join(tmpdir(), 'derplane-cert-flags-'));
afterAll(() => rmSync(root, { recursive: true }));

let cert: string;
let key: string;
let relay: RelayProcess | undefined;
beforeEach(() => {
  const folder = mkdtempSync(join(root, 'files-'));
  [cert, key] = [join(folder, 'tls.crt'), join(folder, 'tls.key')];
});
afterEach(async () => {
  relay?.kill('SIGKILL');
  await relay?.ended;
  relay = undefined;
});

const args = (...more: string[]) => [
  ...['-a', '127.0.0.1:0', '-c', join(root, 'derper.key'), '-shards', '1', '-stun=false', '-http-port', '-1'],
  ...['-cert', cert, '-key', key, ...more],
];
const config = (...flags: string[]) => relayConfig(parseFlags(FLAGS, flags), { HOME: '/h' }, true);

function put(certificate: TestCertificate): void {
  writeFileSync(cert, certificate.cert);
  writeFileSync(key, certificate.keyPem, { mode: 0o600 });
}

/** What a TLS client gets: the leaf in hexadecimal, or the error of the handshake. */
async function leafOf(port: number, servername: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, servername, rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect');
    return Buffer.from(socket.getPeerCertificate().raw).toString('hex');
  } finally {
    socket.destroy();
  }
}

describe('-cert and -key', () => {
  test('are served, and followed when they change', async () => {
    const first = await makeCertificate();
    put(first);
    relay = await startDerplane(args('-hostname', HOST));
    expect(await leafOf(relay.port, HOST)).toBe(hex(first));
    await expect(leafOf(relay.port, 'other.example.com')).rejects.toThrow();
    const second = await makeCertificate();
    put(second);
    await relay.line(/certificate of derp\.example\.com: read anew/);
    expect(await leafOf(relay.port, HOST)).toBe(hex(second));
  });

  test('are never made: missing ones are an error that names the flags, for a name and an IP address', async () => {
    for (const host of [HOST, '192.0.2.1']) {
      const { code, stderr } = await derplane(args('-hostname', host));
      expect(code).toBe(1);
      expect(stderr).toContain(`can not load x509 key pair for hostname "${host}": `);
      expect(stderr).toContain(`the files are those of -cert ${cert} and -key ${key}, for the host of -hostname`);
    }
  });

  test('that are not for -hostname are an error', async () => {
    put(await makeCertificate({ names: ['other.example.com'] }));
    const { code, stderr } = await derplane(args('-hostname', HOST));
    expect(code).toBe(1);
    expect(stderr).toContain(`cert invalid for hostname "${HOST}"`);
    expect(stderr).toContain(`-cert ${cert}`);
  });

  test('belong together, and to -certmode manual, which they imply', () => {
    expect(() => config('-a=:1', '-cert=/c')).toThrow('-cert /c: needs -key FILE too');
    expect(() => config('-a=:1', '-key=/k')).toThrow('-key /k: needs -cert FILE too');
    expect(() => config('-a=:443', '-cert=/c', '-key=/k', '-certmode=letsencrypt')).toThrow(
      '-cert /c: needs -certmode manual, and -certmode is letsencrypt',
    );
    const { tls, warnings } = config('-a=:8443', '-cert=/c', '-key=/k');
    expect(tls?.certificates).toMatchObject({ mode: 'manual', files: { cert: '/c', key: '/k' } });
    expect(warnings).toEqual([]);
  });
});

describe('-sni any', () => {
  test('serves the certificate to clients that send another name or none, also a new one', async () => {
    const first = await makeCertificate();
    put(first);
    relay = await startDerplane(args('-hostname', HOST, '-sni', 'any'));
    for (const name of [HOST, 'other.example.com', '']) expect(await leafOf(relay.port, name)).toBe(hex(first));
    const second = await makeCertificate();
    put(second);
    relay.kill('SIGHUP');
    await relay.line(/certificate of derp\.example\.com: read anew/);
    for (const name of [HOST, 'other.example.com', '']) expect(await leafOf(relay.port, name)).toBe(hex(second));
  });

  test('leaves the certificates of other names to these', () => {
    const calls: unknown[] = [];
    const note = (...call: unknown[]) => void calls.push(call);
    const sink = forAnyName(
      {
        set: (name) => note('set', name),
        delete: (name) => note('delete', name),
        setChallenge: (name) => note('setChallenge', name),
        deleteChallenge: (name) => note('deleteChallenge', name),
        expect: (name) => note('expect', name),
        unexpect: (name) => note('unexpect', name),
      },
      'Derp.Example.com.',
    );
    sink.set('192.0.2.1', []);
    sink.set(HOST, []);
    sink.expect('192.0.2.1');
    sink.unexpect('192.0.2.1');
    sink.setChallenge(HOST, { cert: '', key: '' });
    sink.deleteChallenge(HOST);
    sink.delete('192.0.2.1');
    sink.delete(HOST);
    expect(calls).toEqual([
      ['set', '192.0.2.1'],
      ['set', HOST],
      ['set', '*'],
      ['expect', '192.0.2.1'],
      ['unexpect', '192.0.2.1'],
      ['setChallenge', HOST],
      ['deleteChallenge', HOST],
      ['delete', '192.0.2.1'],
      ['delete', HOST],
      ['delete', '*'],
    ]);
  });
});

test('-debug-pages=false leaves the debug pages to -metrics-addr', async () => {
  put(await makeCertificate());
  relay = await startDerplane(
    args('-hostname', HOST, '-sni', 'any', '-debug-pages=false', '-metrics-addr', '127.0.0.1:0'),
  );
  const [, metrics] = (await relay.line(/serving metrics on /)).match(/on (\S+)$/)!;
  expect((await fetch(`http://${metrics}/debug/varz`)).status).toBe(200);
  const answers = await Promise.all(['/debug/', '/debug/varz', '/debug/clients/', '/'].map((path) => get(path)));
  expect(answers.map((answer) => answer.slice(9, 12))).toEqual(['404', '404', '404', '200']);
  expect(answers[3]).not.toContain('/debug/');
});

test('-debug-pages=false with -home none closes the connection', async () => {
  put(await makeCertificate());
  relay = await startDerplane(args('-hostname', HOST, '-sni', 'any', '-debug-pages=false', '-home', 'none'));
  expect(await get('/debug/varz')).toBe('');
  expect(await get('/derp/probe')).toMatch(/^HTTP\/1\.1 200 /);
  expect(relay.stderr()).toContain(
    '-debug-pages=false without -metrics-addr: metrics and debug pages are served nowhere',
  );
});

test('CONNECT over TLS is 403, also with -ace, which gets one warning', async () => {
  put(await makeCertificate());
  relay = await startDerplane(args('-hostname', HOST, '-sni', 'any', '-ace'));
  expect(await get('example.com:443', 'CONNECT')).toMatch(/^HTTP\/1\.1 403 [\s\S]*CONNECT not enabled/);
  expect(relay.stderr().match(/-ace/g)).toHaveLength(1);
});

/** GET over TLS, as it comes; empty when the connection closes without an answer. */
async function get(path: string, method = 'GET'): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port: relay!.port, rejectUnauthorized: false });
  socket.on('error', () => {});
  socket.write(`${method} ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`);
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk;
  });
  await once(socket, 'close');
  return answer;
}
