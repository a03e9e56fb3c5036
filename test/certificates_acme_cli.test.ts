/** The relay of the command with certificates of a real ACME authority. Its ports are others than 443 and 80, which only the authority minds. */
import type { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { type RunningRelay, startRelay } from '../dist/cli/relay.js';
import { ask } from './support/debug_server.js';
import { LogWatch } from './support/log_watch.js';
import { BUILD_TIMEOUT, buildPebble, type Pebble, pebbleMissing, startPebble } from './support/pebble.js';
import { freePorts } from './support/ports.js';

const HOST = 'derp.example.com';

describe.skipIf(pebbleMissing !== undefined)('-certmode letsencrypt', () => {
  let folder: string;
  let logger: LogWatch;
  let pebble: Pebble | undefined;
  let relay: RunningRelay | undefined;
  const { SSL_CERT_FILE } = process.env;

  beforeAll(buildPebble, BUILD_TIMEOUT);
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'derplane-acme-cli-'));
    logger = new LogWatch();
  });
  afterEach(async () => {
    await relay?.close();
    await pebble?.close();
    relay = undefined;
    pebble = undefined;
    if (SSL_CERT_FILE === undefined) delete process.env.SSL_CERT_FILE;
    else process.env.SSL_CERT_FILE = SSL_CERT_FILE;
    rmSync(folder, { recursive: true });
  });

  /** @param tlsPort - where the authority looks for TLS-ALPN-01 */
  async function start(httpPort: number, httpsPort: number, tlsPort: number): Promise<RunningRelay> {
    pebble = await startPebble({ httpPort, tlsPort });
    process.env.SSL_CERT_FILE = pebble.rootFile;
    const flags = parseFlags(FLAGS, [
      ...['-a', '127.0.0.1:443', '-c', join(folder, 'derper.key'), '-stun=false', '-shards', '1', '-drain-time', '0'],
      ...['-hostname', HOST, '-certdir', join(folder, 'certs'), '-acme-directory', pebble.directory],
    ]);
    const config = relayConfig(flags, process.env, false);
    const plainAddress = { flag: '-http-port', host: '127.0.0.1', port: httpPort };
    const tls = config.tls && { ...config.tls, plainAddress };
    const log = { logger, writeLine: () => {}, print: () => {}, linesLost: () => 0 };
    relay = await startRelay({ ...config, tls, address: { flag: '-a', host: '127.0.0.1', port: httpsPort } }, log);
    return relay;
  }

  /** The file is written while clients are served already. */
  const kept = () => expect.poll(() => readdirSync(join(folder, 'certs'))).toContain(HOST);

  test('a client that comes first waits for the certificate, which is then kept, and a metric', async () => {
    const [httpPort, httpsPort] = (await freePorts(2)) as [number, number];
    await start(httpPort, httpsPort, httpsPort);
    const leaf = await leafOf(httpsPort);
    expect(leaf.subjectAltName).toBe(`DNS:${HOST}`);
    expect(leaf.issuer).toContain('Pebble');
    await kept();
    expect(readFileSync(join(folder, 'certs', HOST), 'utf8')).toContain('PRIVATE KEY');
    // Pebble chooses one of its profiles: 6 days, or 90.
    expect((await ask(httpPort, '/debug/varz')).body).toMatch(
      /^derplane_certificate_remaining_seconds\{name="derp\.example\.com"\} \d+/m,
    );
  });

  test('where TLS-ALPN-01 cannot pass, the plain port answers HTTP-01', async () => {
    const [httpPort, httpsPort, elsewhere] = (await freePorts(3)) as [number, number, number];
    await start(httpPort, httpsPort, elsewhere);
    expect((await leafOf(httpsPort)).subjectAltName).toBe(`DNS:${HOST}`);
    const unknown = await ask(httpPort, '/.well-known/acme-challenge/x', 'GET', { Host: HOST });
    expect(unknown.status).toBe(404);
  });

  test('a certificate in the folder is served without asking', async () => {
    const [httpPort, httpsPort] = (await freePorts(2)) as [number, number];
    await start(httpPort, httpsPort, httpsPort);
    const first = await leafOf(httpsPort);
    await kept();
    await relay?.close();
    await pebble?.close();
    await start(httpPort, httpsPort, httpsPort);
    expect((await leafOf(httpsPort)).fingerprint256).toBe(first.fingerprint256);
  });
});

/** What the relay answers a handshake for its name with, at last. */
async function leafOf(port: number): Promise<X509Certificate> {
  const socket = connect({ host: '127.0.0.1', port, servername: HOST, rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect');
    return socket.getPeerX509Certificate()!;
  } finally {
    socket.destroy();
  }
}
