/** Certificates that the relay can serve and nodes will refuse: a warning says so, at the start and when they are replaced. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { filesOf, ManualCertificate } from '../dist/certificates/manual.js';
import { formatPin } from '../dist/tls/pin.js';
import { makeCertificate, makeChain, type TestCertificate } from './support/certificates.js';
import { LogWatch } from './support/log_watch.js';
import { RecordingSink } from './support/recording_sink.js';

const HOST = 'derp.example.com';
const DAY = 86_400_000;

let folder: string;
let root: TestCertificate;
let intermediate: TestCertificate;
let leaf: TestCertificate;
const open: ManualCertificate[] = [];

beforeAll(async () => {
  ({ root, intermediate, leaf } = await makeChain());
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'derplane-faults-'));
});
afterEach(() => {
  for (const manual of open.splice(0)) manual.close();
  rmSync(folder, { recursive: true });
  vi.unstubAllEnvs();
});

function put(keyPem: string, ...chain: TestCertificate[]): void {
  writeFileSync(join(folder, `${HOST}.crt`), chain.map(({ cert }) => cert).join(''));
  writeFileSync(join(folder, `${HOST}.key`), keyPem, { mode: 0o600 });
}

function start(): { manual: ManualCertificate; log: LogWatch; sink: RecordingSink } {
  const [log, sink] = [new LogWatch(), new RecordingSink()];
  const manual = new ManualCertificate({
    files: filesOf(folder, HOST),
    hostname: HOST,
    sink,
    logger: log,
    pollInterval: 1e9,
  });
  open.push(manual);
  return { manual, log, sink };
}

const warnings = () => start().log.lines.map((line) => line.replace(`WARN certificate of ${HOST}: `, ''));

const ONLY =
  /^the file holds this certificate only, and its issuer "intermediate" is not a root .* many nodes refuse it\. .*fullchain\.pem/;

describe('a chain', () => {
  test('without its intermediate is warned of', () => {
    put(leaf.keyPem, leaf);
    expect(warnings()).toEqual([expect.stringMatching(ONLY)]);
  });

  test('that is whole is fine, with its root and without', () => {
    put(leaf.keyPem, leaf, intermediate);
    expect(warnings()).toEqual([]);
    put(leaf.keyPem, leaf, intermediate, root);
    expect(warnings()).toEqual([]);
  });

  test('is fine without intermediates where a root signed the certificate itself', async () => {
    const direct = await makeCertificate({ issuer: root });
    put(direct.keyPem, direct);
    expect(warnings()).toEqual([expect.stringMatching(/its issuer "root" is not a root that this machine trusts/)]);
    const bundle = join(folder, 'roots.pem');
    writeFileSync(bundle, root.cert);
    vi.stubEnv('SSL_CERT_FILE', bundle);
    expect(warnings()).toEqual([]);
  });

  test('with the intermediate of another certificate is warned of', async () => {
    const other = await makeChain();
    put(leaf.keyPem, leaf, other.intermediate);
    expect(warnings()).toEqual([expect.stringMatching(/^no other certificate in the file issued it, and its issuer/)]);
  });

  test('whose intermediate is out of date is warned of', async () => {
    const chainOf = async (notBefore: number, notAfter: number) => {
      const between = await makeCertificate({
        names: [],
        commonName: 'between',
        ca: true,
        issuer: root,
        notBefore: new Date(Date.now() + notBefore),
        notAfter: new Date(Date.now() + notAfter),
      });
      const end = await makeCertificate({ issuer: between });
      put(end.keyPem, end, between);
    };
    await chainOf(-9 * DAY, -DAY);
    expect(warnings()).toEqual([
      expect.stringMatching(/^the intermediate certificate "between" in the file expired on \d{4}-/),
    ]);
    await chainOf(DAY, 9 * DAY);
    expect(warnings()).toEqual([
      expect.stringMatching(/^the intermediate certificate "between" in the file is not valid before/),
    ]);
  });

  test('is looked at again when its files are replaced, and not when they are the same', () => {
    put(leaf.keyPem, leaf, intermediate);
    const { manual, log } = start();
    put(leaf.keyPem, leaf);
    manual.reload();
    manual.reload();
    expect(log.lines).toEqual([
      expect.stringMatching(/^INFO .*read anew/),
      expect.stringMatching(/this certificate only/),
      expect.stringMatching(/^INFO .*unchanged/),
    ]);
  });

  test('is looked at with roots that cannot be read, too', () => {
    vi.stubEnv('SSL_CERT_FILE', join(folder, 'none.pem'));
    put(leaf.keyPem, leaf);
    expect(warnings()).toEqual([expect.stringMatching(ONLY)]);
  });
});

describe('a self-signed certificate of a name', () => {
  test('is no incomplete chain, and is said to need its pin in the DERP map', async () => {
    const own = await makeCertificate();
    put(own.keyPem, own);
    const pin = formatPin(own.der);
    expect(warnings()).toEqual([
      `it is self-signed: nodes refuse it unless their DERP map has "CertName":"${pin}" for this relay`,
    ]);
  });

  test('is served without what stands behind it, which would make nodes refuse its pin', async () => {
    const own = await makeCertificate();
    put(own.keyPem, own, root);
    expect(start().sink.served(HOST)!.cert).toBe(own.cert);
  });
});

test('a key that every user can read is warned of', () => {
  put(leaf.keyPem, leaf, intermediate);
  chmodSync(join(folder, `${HOST}.key`), 0o644);
  expect(warnings()).toEqual([
    expect.stringMatching(/^every user of this machine can read the key \S+\.key: chmod 600 it$/),
  ]);
});
