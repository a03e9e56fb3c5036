import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DerpError } from 'derplane';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { filesOf, ManualCertificate } from '../dist/certificates/manual.js';
import { type CertificateSource, certificateSource } from '../dist/certificates/source.js';
import { makeCertificate, type TestCertificate } from './support/certificates.js';
import { LogWatch } from './support/log_watch.js';
import { RecordingSink } from './support/recording_sink.js';
import { handshake } from './support/tls_handshake.js';

const HOST = 'derp.example.com';
const DAY = 86_400_000;

let folder: string;
let sink: RecordingSink;
let logger: LogWatch;
let first: TestCertificate;
let second: TestCertificate;
const open: { close(): void }[] = [];

beforeAll(async () => {
  [first, second] = await Promise.all([makeCertificate(), makeCertificate({ type: 'rsa' })]);
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'derplane-manual-'));
  sink = new RecordingSink();
  logger = new LogWatch();
});
afterEach(() => {
  for (const source of open.splice(0)) source.close();
  rmSync(folder, { recursive: true });
});

function put({ cert, keyPem }: TestCertificate, into = folder, host = HOST): void {
  writeFileSync(join(into, `${host}.crt`), cert);
  writeFileSync(join(into, `${host}.key`), keyPem, { mode: 0o600 });
}

/** What was logged, but that certificates of a name are self-signed here. */
const said = () => logger.lines.filter((line) => !line.includes('it is self-signed'));

/** As the relay opens it. */
async function start(hostname = HOST): Promise<CertificateSource> {
  const source = await certificateSource(
    { mode: 'manual', folder, hostname, acme: { ipCertificates: false } },
    sink,
    logger,
  );
  open.push(source);
  return source;
}

/** One that looks at its files every few milliseconds. */
function startQuick(): ManualCertificate {
  const manual = new ManualCertificate({
    files: filesOf(folder, HOST),
    hostname: HOST,
    sink,
    logger,
    pollInterval: 10,
  });
  open.push(manual);
  return manual;
}

describe('at the start', () => {
  test('the pair of a DNS name is served to those who ask for that name', async () => {
    put(first);
    const source = await start();
    expect([...sink.certificates.keys()]).toEqual([HOST]);
    await handshake(sink.served(HOST)!, { servername: HOST, ca: first.cert });
    expect(source.pin).toBeUndefined();
  });

  test('the pair of an IP address is served to everybody', async () => {
    put(await makeCertificate({ names: ['192.0.2.1'] }), folder, '192.0.2.1');
    const source = await start('192.0.2.1');
    expect([...sink.certificates.keys()]).toEqual(['*']);
    expect(source.pin).toMatch(/^sha256-raw:[0-9a-f]{64}$/);
  });

  test('a certificate that an authority issued for an IP address has no pin, which nodes would refuse', async () => {
    const issuer = await makeCertificate({ names: [], commonName: 'root', ca: true });
    put(await makeCertificate({ names: ['192.0.2.1'], issuer }), folder, '192.0.2.1');
    expect((await start('192.0.2.1')).pin).toBeUndefined();
  });

  test('what has a meaning in paths is left out of the names of the files', () => {
    expect(filesOf('/d', 'a-b.Example.com')).toEqual({ cert: '/d/a-b.Example.com.crt', key: '/d/a-b.Example.com.key' });
    expect(filesOf('/d', '../x/_y:*é').cert).toBe('/d/..xy.crt');
    expect(filesOf('/d', '2001:db8::1').key).toBe('/d/2001db81.key');
  });

  test('the end of the certificate is told', async () => {
    const notAfter = new Date(Math.floor(Date.now() / 1000) * 1000 + 30 * DAY);
    put(await makeCertificate({ notAfter }));
    expect((await start()).expiry()).toMatchObject([{ name: HOST, notAfter }]);
    expect(said()).toEqual([]);
  });

  test('an expired certificate is served, with a warning', async () => {
    put(await makeCertificate({ notBefore: new Date(Date.now() - 9 * DAY), notAfter: new Date(Date.now() - DAY) }));
    await start();
    expect(sink.calls).toHaveLength(1);
    expect(said()).toEqual([
      expect.stringMatching(/^WARN certificate of derp\.example\.com expired on .*clients refuse/),
    ]);
  });

  test('one that is not valid yet is served, with a warning', async () => {
    put(await makeCertificate({ notBefore: new Date(Date.now() + DAY) }));
    await start();
    expect(said()).toEqual([expect.stringMatching(/^WARN .*: not valid before .*; is the clock right\?$/)]);
  });

  const failing = async (hostname = HOST) => {
    const error = await start(hostname).then(
      () => undefined,
      (reason: Error) => reason,
    );
    expect(error).toMatchObject({ code: 'ERR_DERP_CERTIFICATE' });
    expect(error!.message).toMatch(
      /^can not load x509 key pair for hostname ".*": .*; -certmode manual takes it from -certdir$/,
    );
    expect(sink.calls).toEqual([]);
    return error!.message;
  };

  test('a missing file or folder is an error', async () => {
    expect(await failing()).toContain(`${folder}/${HOST}.crt: ENOENT: no such file or directory`);
    writeFileSync(join(folder, `${HOST}.crt`), first.cert);
    expect(await failing()).toContain(`${folder}/${HOST}.key: ENOENT`);
    rmSync(folder, { recursive: true });
    expect(await failing()).toContain(`${folder}/${HOST}.crt: ENOENT`);
    mkdirSync(folder);
  });

  test('a certificate of another name is an error that says which names it has', async () => {
    put(first, folder, 'other.example.com');
    expect(await failing('other.example.com')).toContain(
      'cert invalid for hostname "other.example.com", valid for DNS:derp.example.com',
    );
    put(first, folder, '192.0.2.1');
    expect(await failing('192.0.2.1')).toContain(
      'cert invalid for hostname "192.0.2.1", valid for DNS:derp.example.com',
    );
  });

  test('a pair that does not belong together, and what the sink refuses, are errors', async () => {
    put({ ...first, keyPem: second.keyPem });
    expect(await failing()).toContain('is not the key of the first certificate');
    put(first);
    sink.refusal = new DerpError('ERR_DERP_CERTIFICATE', 'refused by the sink');
    expect(await failing()).toContain('refused by the sink');
  });

  test.skipIf(process.getuid?.() === 0)('an unreadable folder is an error', async () => {
    put(first);
    chmodSync(folder, 0o000);
    const message = await failing();
    chmodSync(folder, 0o700);
    expect(message).toContain('EACCES: permission denied');
  });

  test('a file in the place of the folder is an error', async () => {
    rmSync(folder, { recursive: true });
    writeFileSync(folder, '');
    expect(await failing()).toContain('ENOTDIR: not a directory');
  });
});

describe('while it runs', () => {
  beforeEach(() => put(first));

  const reloaded = () => logger.line(/^INFO certificate of derp\.example\.com: read anew, valid until \d{4}-/);

  test('a pair written over the old one is served', async () => {
    const manual = startQuick();
    put(second);
    await sink.serving(HOST, second.cert);
    await reloaded();
    expect(manual.expiry()).toHaveLength(1);
    expect(sink.certificates.get(HOST)).toEqual([{ cert: second.cert, key: second.keyPem }]);
  });

  test('files renamed into their places are served', async () => {
    startQuick();
    const next = mkdtempSync(join(tmpdir(), 'derplane-next-'));
    put(second, next);
    for (const name of [`${HOST}.key`, `${HOST}.crt`]) {
      cpSync(join(next, name), join(folder, `${name}.new`));
      renameSync(join(folder, `${name}.new`), join(folder, name));
    }
    rmSync(next, { recursive: true });
    await sink.serving(HOST, second.cert);
  });

  test('links that come to point elsewhere are followed, as certbot sets them', async () => {
    const archive = join(folder, 'archive');
    const live = join(folder, 'live');
    for (const [name, pair] of [
      ['1', first],
      ['2', second],
    ] as const) {
      mkdirSync(join(archive, name), { recursive: true });
      put(pair, join(archive, name));
    }
    mkdirSync(live);
    const link = (version: string) => {
      for (const name of [`${HOST}.crt`, `${HOST}.key`]) {
        const path = join(live, name);
        if (existsSync(path)) unlinkSync(path);
        symlinkSync(join('..', 'archive', version, name), path);
      }
    };
    link('1');
    for (const name of [`${HOST}.crt`, `${HOST}.key`]) {
      unlinkSync(join(folder, name));
      symlinkSync(join('live', name), join(folder, name));
    }
    startQuick();
    link('2');
    await sink.serving(HOST, second.cert);
  });

  test('a folder behind a link that is swapped is followed, as Kubernetes mounts secrets', async () => {
    for (const [name, pair] of [
      ['..1', first],
      ['..2', second],
    ] as const) {
      mkdirSync(join(folder, name));
      put(pair, join(folder, name));
    }
    symlinkSync('..1', join(folder, '..data'));
    for (const name of [`${HOST}.crt`, `${HOST}.key`]) {
      unlinkSync(join(folder, name));
      symlinkSync(join('..data', name), join(folder, name));
    }
    startQuick();
    symlinkSync('..2', join(folder, '..data_tmp'));
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
    await sink.serving(HOST, second.cert);
  });

  test('a new certificate waits for its key; the old pair stays until then, and one line says so', async () => {
    startQuick();
    writeFileSync(join(folder, `${HOST}.crt`), second.cert);
    await logger.line(/^ERROR .*not replaced, the one in force stays: key .* is not the key of the first certificate/);
    expect(sink.served(HOST)!.cert).toBe(first.cert);
    writeFileSync(join(folder, `${HOST}.key`), second.keyPem);
    await sink.serving(HOST, second.cert);
    await reloaded();
    expect(logger.lines.filter((line) => line.startsWith('ERROR'))).toHaveLength(1);
  });

  test.each([
    ['an empty file', () => ''],
    ['half of a certificate', () => second.cert.slice(0, 300)],
    ['no certificate', () => 'hello\n'],
  ])('%s keeps the old certificate, said once per change', async (_, content) => {
    startQuick();
    for (const round of [1, 2]) {
      writeFileSync(join(folder, `${HOST}.crt`), `${content()}${' '.repeat(round)}`);
      await logger.line(/^ERROR .*not replaced, the one in force stays: /, round);
    }
    put(second);
    await sink.serving(HOST, second.cert);
    await reloaded();
    expect(logger.lines.filter((line) => line.startsWith('ERROR'))).toHaveLength(2);
  });

  test('files that go keep the old certificate, and come back', async () => {
    startQuick();
    rmSync(folder, { recursive: true });
    await logger.line(/^ERROR .*not replaced, the one in force stays: .*ENOENT/);
    mkdirSync(folder);
    put(second);
    await sink.serving(HOST, second.cert);
  });

  test('a certificate of another name, and what the sink refuses, keep the old one', async () => {
    const manual = startQuick();
    put(await makeCertificate({ names: ['other.example.com'] }));
    await logger.line(/^ERROR .*cert invalid for hostname "derp\.example\.com", valid for DNS:other/);
    sink.refusal = new DerpError('ERR_DERP_CERTIFICATE', 'refused by the sink');
    put(second);
    await logger.line(/^ERROR .*refused by the sink/);
    expect(sink.served(HOST)!.cert).toBe(first.cert);
    sink.refusal = undefined;
    manual.reload();
    expect(sink.served(HOST)!.cert).toBe(second.cert);
  });

  test('SIGHUP reads at once, and says what became of it', async () => {
    const source = await start();
    source.reload!();
    expect(said()).toEqual([`INFO certificate of ${HOST}: unchanged`]);
    put(second);
    source.reload!();
    expect(sink.served(HOST)!.cert).toBe(second.cert);
    writeFileSync(join(folder, `${HOST}.key`), '');
    source.reload!();
    expect(logger.lines.at(-1)).toMatch(/^ERROR .*not replaced.*no private key in it/);
    expect(source.expiry()).toHaveLength(1);
  });

  test('the relay looks at its files by itself', async () => {
    await start();
    put(second);
    await sink.serving(HOST, second.cert);
  });

  test('the new pin of an IP address is logged, and a new certificate that ends soon warned of', async () => {
    put(await makeCertificate({ names: ['192.0.2.1'] }), folder, '192.0.2.1');
    const source = await start('192.0.2.1');
    put(
      await makeCertificate({
        names: ['192.0.2.1'],
        notBefore: new Date(Date.now() - 30 * DAY),
        notAfter: new Date(Date.now() + 2 * DAY),
      }),
      folder,
      '192.0.2.1',
    );
    source.reload!();
    expect(logger.lines).toEqual([
      expect.stringContaining(source.pin!),
      expect.stringMatching(/^WARN certificate of 192\.0\.2\.1 expires on .*, in 1 day; put a new one in its place$/),
    ]);
  });

  test('a closed one reads nothing and keeps no process', () => {
    const script = `
      import { certificateSource } from ${JSON.stringify(new URL('../dist/certificates/source.js', import.meta.url).href)};
      const sink = { set() {} };
      await certificateSource({ mode: 'manual', folder: ${JSON.stringify(folder)}, hostname: ${JSON.stringify(HOST)} }, sink, console);
    `;
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    expect({ status, stderr }).toEqual({
      status: 0,
      stderr: expect.stringMatching(/^\S+ certificate of .*self-signed.*\n$/),
    });
  });
});
