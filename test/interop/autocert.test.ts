import { execFile, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readdir, rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { AcmeRig, HOST } from '../support/acme_rig.js';
import { buildOwn } from '../support/go_programs.js';
import { BUILD_TIMEOUT, buildPebble, type Pebble, pebbleMissing, startPebble } from '../support/pebble.js';
import { goMissing } from './derpinterop.js';

/** A server that nobody is. */
const NOWHERE = 'https://127.0.0.1:1/';

/** SHA-256 of the certificates for clients with and without ECDSA. */
interface Leaves {
  ec: string;
  rsa: string;
}

describe.skipIf(goMissing ?? pebbleMissing)('the folder of derper', () => {
  let rig: AcmeRig;
  let program: string;
  let pebble: Pebble | undefined;

  beforeAll(async () => {
    await buildPebble();
    program = await buildOwn('autocertinterop', BUILD_TIMEOUT);
  }, BUILD_TIMEOUT);

  beforeEach(async () => {
    rig = await AcmeRig.make();
  });

  afterEach(async () => {
    await rig.close();
    await pebble?.close();
    pebble = undefined;
  });

  const autocertReads = async (): Promise<Leaves> => {
    const { stdout } = await promisify(execFile)(program, ['read', rig.folder, HOST]);
    return JSON.parse(stdout);
  };

  /** Lets autocert fill the folder from Pebble. */
  const autocertGets = async (): Promise<Leaves> => {
    const roots = { SSL_CERT_FILE: rig.path('pebble-root.pem') };
    const child = spawn(program, ['get', rig.folder, HOST], {
      env: { ...process.env, ...roots },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const ended = once(child, 'close');
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const port = Number((await lines.next()).value);
    pebble = await startPebble({ httpPort: rig.httpPort, tlsPort: port, rootFile: roots.SSL_CERT_FILE });
    child.stdin.write(`${pebble.directory}\n`);
    const { value } = await lines.next();
    await ended;
    await rm(roots.SSL_CERT_FILE);
    return JSON.parse(value as string);
  };

  const servedLeaves = (): string[] =>
    (rig.sink.certificates.get(HOST) ?? []).map(({ cert }) =>
      new X509Certificate(cert).fingerprint256.replaceAll(':', '').toLowerCase(),
    );

  test('autocert serves what we got', async () => {
    pebble = await startPebble({ httpPort: rig.httpPort, tlsPort: rig.sink.port });
    const acme = await rig.source({ directory: pebble.directory, env: { SSL_CERT_FILE: pebble.rootFile } });
    acme.start();
    await rig.log.line(/got cert/);
    await acme.close();
    expect((await autocertReads()).ec).toBe(servedLeaves()[0]);
  });

  test('we serve what autocert got, EC and RSA, without asking anybody', async () => {
    const { ec, rsa } = await autocertGets();
    expect((await readdir(rig.folder)).sort()).toEqual(['acme_account+key', HOST, `${HOST}+rsa`]);
    const acme = await rig.source({ directory: NOWHERE });
    acme.start();
    await rig.sink.until(() => servedLeaves().length === 2);
    expect(servedLeaves()).toEqual([ec, rsa]);
    expect(acme.expiry().map(({ name }) => name)).toEqual([HOST, `${HOST}+rsa`]);
    await acme.close();
    expect(await autocertReads()).toEqual({ ec, rsa });
  });

  test("autocert's account is ours too", async () => {
    await autocertGets();
    await Promise.all([rm(rig.path(HOST)), rm(rig.path(`${HOST}+rsa`))]);
    const { directory, rootFile, log } = pebble as Pebble;
    rig.sink.hidesChallenges = true;
    const acme = await rig.source({ directory, env: { SSL_CERT_FILE: rootFile } });
    acme.start();
    await rig.log.line(/got cert/);
    expect(log().match(/There are now \d+ accounts/g)).toEqual(['There are now 1 accounts']);
  });
});
