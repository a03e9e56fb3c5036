/** The mesh key from a setec server. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { readSecret } from '../dist/secrets/mesh_secret.js';
import { derplane, MAIN, type RelayProcess, startDerplane } from './support/derplane.js';
import { LineWatch } from './support/line_watch.js';

const KEY = '0f'.repeat(32);
const NAME = 'prod/derp/meshkey';
const VALUE = Buffer.from(`${KEY}\n`).toString('base64');

interface Asked {
  request: IncomingMessage;
  body: string;
}
type Reply = [status: number, body: string];

let folder: string;
let cacheFile: string;
let server: Server;
let url: string;
let asked: Asked[];
/** Answers one after the other; the last one stays. */
let replies: Reply[];
let relay: RelayProcess | undefined;
let lines: string[];
const line = (_: object, message: string) => void lines.push(message);
const logger = { debug: line, info: line, warn: line, error: line };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-secrets-'));
  cacheFile = join(folder, 'cache/derper-secrets');
  [asked, lines, relay] = [[], [], undefined];
  replies = [[200, JSON.stringify({ Value: VALUE, Version: 3 })]];
  server = createServer(async (request, response) => {
    asked.push({ request, body: await text(request) });
    const [status, body] = replies.length > 1 ? replies.shift()! : replies[0]!;
    response.writeHead(status).end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
});

afterEach(async () => {
  relay?.kill('SIGKILL');
  await relay?.ended;
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true });
});

const read = (secretsUrl = url, signal?: AbortSignal) =>
  readSecret({ secretsUrl, secret: NAME, cacheFile }, logger, signal);
const args = (...more: string[]) => ['-a=127.0.0.1:0', '-c', join(folder, 'key'), '-stun=false', '-shards=1', ...more];

describe('a setec server', () => {
  test('is asked by its HTTP API, once, and the answer is kept in the cache', async () => {
    expect((await read(`${url}/`)).text).toBe(`${KEY}\n`);
    const [{ request, body }] = asked as [Asked];
    expect([request.method, request.url]).toEqual(['POST', '/api/get']);
    expect(request.headers).toMatchObject({
      'content-type': 'application/json',
      'sec-x-tailscale-no-browsers': 'setec',
    });
    expect(JSON.parse(body)).toEqual({ Name: NAME, Version: 0, UpdateIfChanged: false });
    expect(asked).toHaveLength(1);
    const cache = JSON.parse(await readFile(cacheFile, 'utf8'));
    expect(cache).toEqual({
      [NAME]: { secret: { Value: VALUE, Version: 3 }, lastAccess: expect.stringMatching(/^\d{10}$/) },
    });
    expect((await stat(cacheFile)).mode & 0o777).toBe(0o600);
  });

  test('is asked again until it answers, and the log says why', async () => {
    replies = [
      [403, 'access denied'],
      [404, ''],
      [500, ' oops\n'],
      [200, 'no JSON'],
      [200, '{"Version":1}'],
      [200, '{"Value":"%%%%","Version":1}'],
      ...replies,
    ];
    expect((await read()).text).toBe(`${KEY}\n`);
    const errors = lines.filter((each) => each.includes('error fetching'));
    expect(errors).toEqual(
      [
        'access denied',
        'not found',
        'request returned status 500: "oops"',
        'the answer is not JSON',
        'the answer has no Value and Version',
        'the answer has no Value and Version',
      ].map((why) => `[store] error fetching "${NAME}": ${why} (retrying)`),
    );
  });

  test('that answers too much is asked again', async () => {
    replies = [[200, 'x'.repeat(65_537)], ...replies];
    expect((await read()).text).toBe(`${KEY}\n`);
    expect(lines.find((each) => each.includes('error fetching'))).toMatch(/maxContentLength size of 65536 exceeded/);
  });

  test('is not asked for what the cache has, however old', async () => {
    await read();
    replies = [[200, '{"Value":"YWJj","Version":4}']];
    expect((await read()).text).toBe(`${KEY}\n`);
    expect(asked).toHaveLength(1);
  });

  test.each(['', '{', '[]', '{"prod/derp/meshkey":{}}', '{"prod/derp/meshkey":{"secret":{"Value":7,"Version":1}}}'])(
    'is asked when the cache holds %j',
    async (content) => {
      await mkdir(join(folder, 'cache'));
      await writeFile(cacheFile, content);
      expect((await read()).text).toBe(`${KEY}\n`);
      expect(lines[0]).toMatch(/^WARNING: error loading cache: .* \(continuing\)$/);
      expect(JSON.parse(await readFile(cacheFile, 'utf8'))[NAME].secret.Version).toBe(3);
    },
  );

  test('leaves other secrets in the cache', async () => {
    await mkdir(join(folder, 'cache'));
    const other = { secret: { Value: 'YWJj', Version: 1 }, lastAccess: '1' };
    await writeFile(cacheFile, JSON.stringify({ other }));
    await read();
    expect(JSON.parse(await readFile(cacheFile, 'utf8'))).toMatchObject({ other, [NAME]: { secret: { Version: 3 } } });
  });
});

describe('derplane with -secrets-url', () => {
  test('gets its mesh key there', async () => {
    relay = await startDerplane(args('-secrets-url', url, '-secrets-cache-dir', cacheFile));
    const log = relay.stderr();
    expect(log).toMatch(
      /Setting up setec store from "http:\/\/127[\s\S]*Got mesh key from setec store[\s\S]*DERP mesh key configured/,
    );
    expect(log).not.toContain(KEY);
    expect(asked).toHaveLength(1);
  });

  test('asks through the proxy of the environment, and this machine without one', async () => {
    const proxy = { http_proxy: url, HTTP_PROXY: url };
    relay = await startDerplane(
      args(
        '-secrets-url',
        'http://setec.example.com',
        '-secrets-path-prefix',
        'a/../b/',
        '-secrets-cache-dir',
        cacheFile,
      ),
      proxy,
    );
    const [{ request, body }] = asked as [Asked];
    expect(request.url).toBe('http://setec.example.com/api/get');
    expect(JSON.parse(body).Name).toBe('b/meshkey');
  });

  test('ends on SIGTERM while the server does not answer', async () => {
    replies = [[403, '']];
    const child = spawn(process.execPath, [MAIN, ...args('-secrets-url', url, '-secrets-cache-dir', cacheFile)]);
    const log = new LineWatch('derplane', child.stderr);
    const ended = once(child, 'exit');
    await log.line(/error fetching "prod\/derp\/meshkey": access denied \(retrying\)/);
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
    expect(log.all()).toContain('SIGTERM: ended before it served');
    expect(existsSync(cacheFile)).toBe(false);
  });

  test('refuses a cache that is a folder, and a value that is no mesh key', async () => {
    const first = await derplane(args('-secrets-url', url, '-secrets-cache-dir', folder));
    expect(first.code).toBe(1);
    expect(first.stderr).toContain(
      `NewFileCache: -secrets-cache-dir ${folder}: cache path ${JSON.stringify(folder)} is not a regular file`,
    );
    replies = [[200, JSON.stringify({ Value: 'YWJj', Version: 1 })]];
    const second = await derplane(args('-secrets-url', url, '-secrets-cache-dir', cacheFile));
    expect(second.code).toBe(1);
    expect(second.stderr).toContain(
      `invalid mesh key: -secrets-url ${url}: "${NAME}": 3 characters, needs 64 hexadecimal`,
    );
  });
});

test.each([
  [['-secrets-url', 'https://s/'], 'prod/derp/meshkey', '/home/x/.cache/derper-secrets'],
  [['-secrets-url', 'https://s/', '-mesh-psk-file', '/f', '-secrets-path-prefix', ''], 'meshkey', undefined],
  [['-secrets-url', 'https://s/', '-secrets-cache-dir', '/c'], undefined, '/c'],
])('%j asks for %s, and keeps it in %s', (flags, secret, cache) => {
  const { meshKey } = relayConfig(parseFlags(FLAGS, ['-a=:1', ...flags]), { HOME: '/home/x' }, true);
  expect(meshKey).toMatchObject({
    secretsUrl: 'https://s/',
    ...(secret !== undefined && { secret }),
    ...(cache !== undefined && { cacheFile: cache }),
  });
});

test('with -dev the environment counts, not -secrets-url; and a URL must be one', () => {
  const config = (...flags: string[]) => relayConfig(parseFlags(FLAGS, flags), {}, true);
  expect(config('-dev', '-secrets-url', 'https://s/').meshKey).toBeUndefined();
  expect(() => config('-a=:1', '-secrets-url', 'file:///x')).toThrow(
    '-secrets-url: must be an http:// or https:// URL',
  );
});
