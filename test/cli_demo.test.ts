import { once } from 'node:events';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { derplane, type RelayProcess, runNpm, startDerplane } from './support/derplane.js';

test('the demo prints every packet with its round trip, and a summary', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'derplane-demo-'));
  const relay = await startDerplane(['-a=127.0.0.1:0', '-c', join(folder, 'derper.key'), '-shards=1', '-stun=false']);
  const { code, stdout, stderr } = await derplane(['demo', '-url', `http://${relay.address}/derp`, '-count=3']);
  relay.kill('SIGTERM');
  await relay.ended;
  await rm(folder, { recursive: true });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const [head, ...lines] = stdout.trimEnd().split('\n');
  expect(head).toMatch(/^relay http:\S+, client a \[.{5}\], client b \[.{5}\]$/);
  expect(lines).toEqual([
    ...[1, 2, 3].map((n) =>
      expect.stringMatching(
        new RegExp(`^packet ${n}: a -> b "hello ${n}", b -> a "hello ${n}, received", round trip \\d+\\.\\d{3} ms$`),
      ),
    ),
    expect.stringMatching(/^3 packets there and back, round trip min\/avg\/max [\d.]+\/[\d.]+\/[\d.]+ ms$/),
  ]);
});

test('without a relay the demo says what to do', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await once(server.close(), 'close');
  const { code, stdout, stderr } = await derplane(['demo', '-url', `http://127.0.0.1:${port}/derp`]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(/^derplane: no relay answers at http:.*ECONNREFUSED.*; start one with: derplane -dev .*\n$/);
});

test('a server that is no relay is told apart', async () => {
  const server = createHttpServer((_request, response) => response.writeHead(404).end('not here')).listen(
    0,
    '127.0.0.1',
  );
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const { code, stderr } = await derplane(['demo', '-url', `http://127.0.0.1:${port}/derp`]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^derplane: no relay answers at .*404.*\n$/);
  server.closeAllConnections();
  await once(server.close(), 'close');
});

test.each([
  [['-url', 'nonsense'], 1, /^derplane: .*nonsense.*\n$/],
  [
    ['-count', '0'],
    2,
    /^invalid value "0" for flag -count: must be an integer from 1 to 1000000\nUsage of derplane demo/,
  ],
  [['stray'], 2, /^unexpected argument: stray\nUsage of derplane demo/],
])('demo %j is refused', async (args, code, message) => {
  const ended = await derplane(['demo', ...args]);
  expect(ended.code).toBe(code);
  expect(ended.stderr).toMatch(message);
});

describe('a relay with a certificate that it made itself', () => {
  let folder: string;
  let relay: RelayProcess;
  let certName: string;

  // The example of the README, on free ports and with this machine's address.
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-demo-'));
    const files = ['-certdir', join(folder, 'certs'), '-c', join(folder, 'derper.key')];
    const address = ['-hostname', '127.0.0.1', '-a', '127.0.0.1:0', '-http-port', '-1'];
    relay = await startDerplane([...address, '-certmode', 'manual', ...files, '-stun=false', '-shards=1']);
    certName = relay.stderr().match(/sha256-raw:[0-9a-f]{64}/)![0];
  });

  afterAll(async () => {
    relay.kill('SIGTERM');
    await relay.ended;
    await rm(folder, { recursive: true });
  });

  test('is tried with the CertName of the map that it printed, by npm as well', async () => {
    const args = ['-url', `https://127.0.0.1:${relay.port}/derp`, '-cert-name', certName, '-count=2'];
    expect(await derplane(['demo', ...args])).toMatchObject({ code: 0, stderr: '' });
    const npm = await runNpm(['run', '--silent', 'demo', '--', ...args]);
    expect(npm.stdout).toMatch(/2 packets there and back/);
  });

  test.each([
    [
      'without it',
      [],
      /answers, but TLS fails: .*self-signed certificate.*; if the relay has a self-signed .*-cert-name/,
    ],
    [
      'with another',
      ['-cert-name', `sha256-raw:${'0'.repeat(64)}`],
      /answers, but TLS fails: .*its hash is [0-9a-f]{64}/,
    ],
    ['with one that is none', ['-cert-name', 'sha256-raw:0'], /^derplane: "sha256-raw:0" is not a pin/],
  ])('%s the demo says why it fails', async (_, args, message) => {
    const ended = await derplane(['demo', '-url', `https://127.0.0.1:${relay.port}/derp`, ...args]);
    expect({ code: ended.code, stdout: ended.stdout }).toEqual({ code: 1, stdout: '' });
    expect(ended.stderr).toMatch(message);
  });
});

test('before a build npm run demo says what to do', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'derplane-demo-'));
  await copyFile(new URL('../package.json', import.meta.url), join(folder, 'package.json'));
  const ended = await runNpm(['run', '--silent', 'demo'], folder);
  await rm(folder, { recursive: true });
  expect(ended).toMatchObject({ code: 1, stdout: '' });
  expect(ended.stderr).toMatch(/^derplane is not built yet: run npm ci && npm run build/);
});
