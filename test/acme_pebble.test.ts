import { X509Certificate } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { AcmeRig, HOST } from './support/acme_rig.js';
import {
  BUILD_TIMEOUT,
  buildPebble,
  EAB,
  goMissing,
  type Pebble,
  type PebbleOptions,
  startPebble,
} from './support/pebble.js';

const DAY = 86_400_000;

describe.skipIf(goMissing)('against Pebble', () => {
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

  test("a certificate is asked for at start, validated by TLS-ALPN-01, served, and kept in the reference's files", async () => {
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
    expect(source.expiry()).toEqual([{ name: HOST, notAfter: new Date(peer.valid_to) }]);
  });
});
void X509Certificate;
void DAY;
void EAB;
