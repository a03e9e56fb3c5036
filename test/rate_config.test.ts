import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { parseRateConfig } from '../dist/server/rate_config.js';
import { derplane, type RelayProcess, startDerplane } from './support/derplane.js';
import { expectRelay } from './support/exchange.js';
import { withRelay } from './support/relay.js';

describe('the file', () => {
  test.each([
    ['{}', 0, 0],
    ['null', 0, 0],
    ['{"PerClientRateLimitBytesPerSec":1000,"PerClientRateBurstBytes":70000}', 1000, 70_000],
    ['{"perclientratelimitbytespersec":7,"Other":[{}]}', 7, 0],
    ['{"PerClientRateBurstBytes":3,"PerClientRateBurstBytes":4}', 0, 4],
    ['{"PerClientRateLimitBytesPerSec":null}', 0, 0],
    ['{"PerClientRateLimitBytesPerSec":9223372036854775807}', Number.MAX_SAFE_INTEGER, 0],
  ])('%s says %i bytes a second, burst %i', (json, bytesPerSecond, burst) => {
    expect(parseRateConfig(Buffer.from(json))).toEqual({ bytesPerSecond, burst });
  });

  test.each([
    '',
    '[]',
    '1',
    '{"PerClientRateLimitBytesPerSec":"1000"}',
    '{"PerClientRateLimitBytesPerSec":2.5}',
    '{"PerClientRateLimitBytesPerSec":1e3}',
    '{"PerClientRateLimitBytesPerSec":-1}',
    '{"PerClientRateBurstBytes":-0}',
    '{"PerClientRateBurstBytes":true}',
    '{} x',
    '{"PerClientRateLimitBytesPerSec":1',
  ])('%j is refused', (json) => {
    expect(() => parseRateConfig(Buffer.from(json))).toThrow(/^error parsing rate config: /);
  });
});

describe('Server.setRateLimit', () => {
  test('raises a lower burst so that every frame fits', () =>
    withRelay({ shards: 1 }, async ({ server }) => {
      expect(server.rateLimit).toEqual({ bytesPerSecond: 0, burst: 0 });
      expect(server.setRateLimit(1000, 10)).toEqual({ bytesPerSecond: 1000, burst: 65_568 });
      expect(server.setRateLimit(1000, 70_000)).toEqual({ bytesPerSecond: 1000, burst: 70_000 });
      expect(server.rateLimit).toEqual({ bytesPerSecond: 1000, burst: 70_000 });
      expect(server.setRateLimit(0, 70_000)).toEqual({ bytesPerSecond: 0, burst: 0 });
    }));

  test.each([-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('refuses %d', (value) =>
    withRelay({ shards: 1 }, async ({ server }) => {
      expect(() => server.setRateLimit(value)).toThrow(expect.objectContaining({ code: 'ERR_DERP_BAD_OPTION' }));
      expect(() => server.setRateLimit(1, value)).toThrow(expect.objectContaining({ code: 'ERR_DERP_BAD_OPTION' }));
    }),
  );
});

describe('-rate-config', () => {
  let folder: string;
  let relay: RelayProcess | undefined;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-rate-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  afterEach(async () => {
    relay?.kill('SIGKILL');
    await relay?.ended;
    relay = undefined;
  });

  const flags = (path: string) => [
    '-a=127.0.0.1:0',
    '-c',
    join(folder, 'key'),
    '-shards=1',
    '-stun=false',
    '-rate-config',
    path,
  ];

  test('is applied at start and again on SIGHUP; a file that has become bad changes nothing', async () => {
    const path = join(folder, 'rate.json');
    await writeFile(path, '{"PerClientRateLimitBytesPerSec":100000000,"PerClientRateBurstBytes":1}');
    relay = await startDerplane(flags(path));
    expect(relay.stderr()).toContain('rate config applied: client-rate=100000000 bytes/sec, client-burst=65568 bytes');
    await expectRelay(`http://${relay.address}/derp`);

    await writeFile(path, '{"PerClientRateLimitBytesPerSec":"a"}');
    relay.kill('SIGHUP');
    await relay.line(/ERROR derper: rate config reload failed: error parsing rate config: /);

    await writeFile(path, '{"PerClientRateLimitBytesPerSec":200000000,"PerClientRateBurstBytes":100000}');
    relay.kill('SIGHUP');
    await relay.line(/rate config applied: client-rate=200000000 bytes\/sec, client-burst=100000 bytes/);
    await relay.line(/derper: rate config reloaded successfully/);

    await rm(path);
    relay.kill('SIGHUP');
    await relay.line(/ERROR derper: rate config reload failed: error reading rate config: ENOENT/);
    await expectRelay(`http://${relay.address}/derp`);
  });

  test.each([
    ['{"PerClientRateLimitBytesPerSec":-5}', 'error parsing rate config: '],
    [undefined, 'error reading rate config: ENOENT'],
  ])('with %s keeps the relay from starting', async (json, reason) => {
    const path = join(folder, 'bad.json');
    await rm(path, { force: true });
    if (json !== undefined) await writeFile(path, json);
    const { code, stderr } = await derplane([...flags(path), '-log-level=error']);
    expect(code).toBe(1);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).toContain(`loading rate config: -rate-config ${path}: ${reason}`);
  });
});
