/** `-mesh-with` over TLS: the command, with certificates in a folder and one list of hosts for all. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { makeCertificate, makeChain } from './support/certificates.js';
import { type RelayProcess, startDerplane } from './support/derplane.js';
import { connectNamed } from './support/named_client.js';
import { stream, untilReached } from './support/packets.js';
import { freePort } from './support/ports.js';

const NAMES = ['derp1.test', 'derp2.test', 'derp3.test'] as const;
const addressOf = (name: string) => `127.0.0.${20 + NAMES.indexOf(name as (typeof NAMES)[number])}`;

let folder: string;
let chain: Awaited<ReturnType<typeof makeChain>>;
const ports = new Map<string, number>();
const running = new Map<string, RelayProcess>();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-mesh-tls-'));
  chain = await makeChain();
  await writeFile(join(folder, 'root.pem'), chain.root.cert);
  await writeFile(join(folder, 'psk'), '0f'.repeat(32));
  for (const name of NAMES) {
    ports.set(name, await freePort(addressOf(name)));
    await certify(name, name);
  }
});

afterEach(async () => {
  for (const relay of running.values()) {
    relay.kill('SIGKILL');
    await relay.ended;
  }
  running.clear();
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** Puts a certificate for `host` where the relay `name` looks for its own. */
async function certify(name: string, host: string): Promise<void> {
  const { cert, keyPem } = await makeCertificate({ issuer: chain.intermediate, names: [host] });
  await writeFile(join(folder, `${name}.crt`), cert + chain.intermediate.cert);
  await writeFile(join(folder, `${name}.key`), keyPem);
}

async function start(name: string): Promise<RelayProcess> {
  const list = NAMES.map((other) => `${other}:${ports.get(other)}/${addressOf(other)}`);
  const certificates = ['-certmode=manual', '-certdir', folder, '-hostname', name, '-http-port=-1'];
  const files = ['-c', join(folder, `${name}.json`), '-mesh-psk-file', join(folder, 'psk')];
  const address = ['-a', `${addressOf(name)}:${ports.get(name)}`, '-shards=1', '-stun=false'];
  const relay = await startDerplane([...address, ...certificates, ...files, '-mesh-with', list.join(',')], {
    SSL_CERT_FILE: join(folder, 'root.pem'),
  });
  running.set(name, relay);
  return relay;
}

const connectTo = (name: string) =>
  connectNamed(new URL(`https://${name}:${ports.get(name)}/derp`), addressOf(name), chain.root.cert);

test('three relays find each other and themselves, and heal when one was killed', async () => {
  for (const name of NAMES) await start(name);
  for (const [name, relay] of running) {
    await relay.line(new RegExp(`mesh\\("${name}:${ports.get(name)}"\\): detected self-connect; ignoring host`));
    expect(relay.stderr()).not.toMatch(new RegExp(`WARN .*mesh\\("${name}:`));
  }
  const [a, c] = [await connectTo('derp1.test'), await connectTo('derp3.test')];
  await untilReached(a, c);
  await untilReached(c, a);
  await Promise.all([stream(a, c, 200), stream(c, a, 200)]);

  const killed = running.get('derp3.test')!;
  killed.kill('SIGKILL');
  await killed.ended;
  await running.get('derp1.test')!.line(/mesh\("derp3\.test:\d+"\): Recv: /);
  c.close();
  await start('derp3.test');
  const back = await connectTo('derp3.test');
  await untilReached(a, back);
  await untilReached(back, a);
  a.close();
  back.close();
});

test('roots that cannot be read are one line an attempt, which names the variable', async () => {
  const [name] = NAMES;
  const address = ['-a', '127.0.0.1:0', '-shards=1', '-stun=false', '-c', join(folder, 'no-roots.json')];
  const relay = await startDerplane(
    [...address, '-mesh-psk-file', join(folder, 'psk'), '-mesh-with', `${name}:${ports.get(name)}/127.0.0.1`],
    { SSL_CERT_FILE: join(folder, 'none.pem') },
  );
  running.set(name, relay);
  const line = await relay.line(/mesh connect/);
  expect(line).toMatch(
    /mesh connect: https:\/\/derp1\.test:\d+\/derp: SSL_CERT_FILE: ENOENT: no such file or directory/,
  );
});
