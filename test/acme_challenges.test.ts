import { mkdir, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AcmeRig, HOST } from './support/acme_rig.js';
import { FakeAcme } from './support/fake_acme.js';

let rig: AcmeRig;
let fake: FakeAcme;

beforeEach(async () => {
  [rig, fake] = await Promise.all([AcmeRig.make(), FakeAcme.listen()]);
});

afterEach(async () => {
  await rig.close();
  await fake.close();
});

const get = async (path: string, host: string): Promise<{ status: number | undefined; body: string }> => {
  const sent = request({ host: '127.0.0.1', port: rig.httpPort, path, headers: { Host: host } }).end();
  return new Promise((resolve, reject) => {
    sent.once('error', reject);
    sent.once('response', async (response) => resolve({ status: response.statusCode, body: await text(response) }));
  });
};

const PATH = '/.well-known/acme-challenge';

/** An order that waits for its HTTP-01 validation. */
const waiting = async () => {
  fake.challenges = ['http-01'];
  fake.failAlways('challenge', 'silence');
  const source = await rig.source({ directory: fake.directory, env: {} });
  source.start();
  await fake.requested('challenge');
  return source;
};

test('a challenge is answered with token and thumbprint while its order runs, and only then', async () => {
  const source = await waiting();
  const { status, body } = await get(`${PATH}/token-1`, HOST);
  expect(status).toBe(200);
  expect(body).toMatch(/^token-1\.[\w-]{43}$/);
  expect((await get(`${PATH}/token-1?x=y`, `${HOST.toUpperCase()}:80`)).body).toBe(body);
  await source.close();
  expect((await get(`${PATH}/token-1`, HOST)).status).toBe(404);
});

test.each([
  ['an unknown token', `${PATH}/unknown`, HOST, 404],
  ['no token', `${PATH}/`, HOST, 404],
  ['a token that is a path', `${PATH}/..%2f..%2fetc%2fpasswd`, HOST, 404],
  ['a token that is a path, plainly', `${PATH}/../../${HOST}`, HOST, 404],
  ['a token as long as can be', `${PATH}/${'a'.repeat(5_000)}`, HOST, 404],
  ['another host', `${PATH}/token-1`, 'other.example.com', 403],
  ['an address without -acme-ip-certs', `${PATH}/token-1`, '127.0.0.1', 403],
  ['a host that is none', `${PATH}/token-1`, '[[:', 403],
  ['another path', '/generate_204', HOST, 302],
  ['a path that only looks like it', '/.well-known/acme-challenges/token-1', HOST, 302],
])('%s: %s of %s is answered %i', async (_what, path, host, expected) => {
  await waiting();
  expect((await get(path, host)).status).toBe(expected);
});

test('a token that another relay put into the shared folder is answered', async () => {
  await rig.source({ directory: fake.directory, env: {} });
  await writeFile(rig.path('abc_DEF-1+http-01'), 'abc_DEF-1.thumbprint');
  expect(await get(`${PATH}/abc_DEF-1`, HOST)).toEqual({ status: 200, body: 'abc_DEF-1.thumbprint' });
});

test('no other file of the folder can be had', async () => {
  const source = await rig.source({ directory: fake.directory, env: {} });
  source.start();
  await rig.log.line(/got cert/);
  for (const name of [HOST, 'acme_account+key', 'acme_account%2Bkey', './acme_account+key']) {
    expect((await get(`${PATH}/${name}`, HOST)).status).toBe(404);
  }
});

test('addresses are hosts too where they have certificates', async () => {
  await rig.source({ directory: fake.directory, env: {}, ipCertificates: true });
  await writeFile(rig.path('abc+http-01'), 'abc.thumbprint');
  for (const host of ['127.0.0.1', '127.0.0.1:80', '[::1]', '[::1]:80']) {
    expect((await get(`${PATH}/abc`, host)).status).toBe(200);
  }
  expect((await get(`${PATH}/abc`, 'other.example.com')).status).toBe(403);
});

test('a token that cannot be read is told once, however many strangers ask for it', async () => {
  await waiting();
  await mkdir(rig.path('broken+http-01'));
  for (let i = 0; i < 3; i++) expect((await get(`${PATH}/broken`, HOST)).status).toBe(404);
  expect(rig.log.lines.filter((line) => /a challenge token: .*broken/.test(line))).toHaveLength(1);
});
