/** `derplane` with metrics. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { shownCommandLine } from '../dist/cli/metrics.js';
import { ask } from './support/debug_server.js';
import { type RelayProcess, startDerplane } from './support/derplane.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-'));
afterAll(() => rmSync(folder, { recursive: true }));

const KEY = join(folder, 'derper.key');
const ARGS = ['-a', '127.0.0.1:0', '-c', KEY, '-stun=false', '-shards', '1'];

async function withProcess(args: string[], env: NodeJS.ProcessEnv, body: (relay: RelayProcess) => Promise<void>) {
  const relay = await startDerplane([...ARGS, ...args], env);
  try {
    await body(relay);
  } finally {
    relay.kill('SIGTERM');
    await relay.ended;
  }
}

const portOf = (line: string) => Number(line.match(/:(\d+)(?:"|$)/)![1]);

describe('derplane', () => {
  test('has debug pages at its own address', () =>
    withProcess([], {}, async ({ port }) => {
      expect((await ask(port, '/debug/varz')).body).toMatch(/^derp_accepts 0$/m);
      const vars = JSON.parse((await ask(port, '/debug/vars')).body);
      expect(vars.cmdline).toEqual(['derplane', ...ARGS]);
      expect((await ask(port, '/debug/varz', 'GET', { 'X-Forwarded-For': '127.0.0.1' })).status).toBe(403);
    }));

  test('serves metrics at -metrics-addr, until the end', () =>
    withProcess(['-metrics-addr', '127.0.0.1:0'], {}, async (relay) => {
      const port = portOf(await relay.line(/derper: serving metrics on 127\.0\.0\.1:\d+/));
      expect(port).not.toBe(relay.port);
      expect((await ask(port, '/metrics')).body).toMatch(/^derp_accepts 0$/m);
      expect((await ask(port, '/derp')).status).toBe(404);
      relay.kill('SIGTERM');
      expect(await relay.ended).toMatchObject({ code: 0 });
    }));

  test('serves them and all debug pages without DERP, too, as derper does', () =>
    withProcess(['-derp=false', '-metrics-addr', ':0'], {}, async (relay) => {
      const port = portOf(await relay.line(/derper: serving metrics on :\d+/));
      const { body } = await ask(port, '/metrics');
      expect(body).toMatch(/^uptime_sec \d+$/m);
      expect(body).toMatch(/^derp_accepts 0$/m);
      expect(await ask(relay.port, '/debug/check')).toMatchObject({
        status: 200,
        body: 'derp.Server ConsistencyCheck okay',
      });
      expect((await ask(relay.port, '/debug/clients/?format=json')).body).toBe('{"conns":0,"keys":0}\n');
    }));

  test('shows limits in its figures only where there are some', () =>
    withProcess([], {}, async ({ port }) => {
      expect((await ask(port, '/debug/vars')).body).not.toContain('rate_limit_per_client');
      expect((await ask(port, '/debug/varz')).body).not.toContain('rate_limit_per_client');
    }));

  test('ends with one line when another program has the address of metrics', () =>
    withProcess([], {}, async ({ port }) => {
      const address = `127.0.0.1:${port}`;
      const second = startDerplane([...ARGS, '-metrics-addr', address]);
      await expect(second).rejects.toThrow(`-metrics-addr ${address}: address already in use`);
    }));

  test('ends with one line when the environment names nobody', async () => {
    const second = startDerplane(ARGS, { TS_ALLOW_DEBUG_IP: 'me' });
    await expect(second).rejects.toThrow('TS_ALLOW_DEBUG_IP: "me" is invalid: expected one IP address');
  });

  test('opens its pages to the holder of the key', () => {
    const path = join(folder, 'debug.key');
    writeFileSync(path, 'sesame\n');
    return withProcess([], { TS_DEBUG_KEY_PATH: path }, async ({ port }) => {
      const headers = { 'X-Forwarded-For': '192.0.2.1' };
      expect((await ask(port, '/debug/varz?debugkey=sesame', 'GET', headers)).status).toBe(200);
      expect((await ask(port, '/debug/varz?debugkey=x', 'GET', headers)).status).toBe(403);
    });
  });
});

describe('the configuration', () => {
  const config = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    relayConfig(parseFlags(FLAGS, ['-dev', ...args]), env, false);

  test.each([
    ['10.0.0.5:9090', { flag: '-metrics-addr', host: '10.0.0.5', port: 9090 }],
    ['[::1]:9090', { flag: '-metrics-addr', host: '::1', port: 9090 }],
    [':9090', { flag: '-metrics-addr', host: '', port: 9090 }],
    ['', undefined],
  ])('-metrics-addr %j', (text, address) => {
    expect(config(['-metrics-addr', text]).metricsAddress).toEqual(address);
  });

  test.each(['x', '10.0.0.5', ':x', ':70000'])('-metrics-addr %j is refused', (text) => {
    expect(() => config(['-metrics-addr', text])).toThrow(`-metrics-addr ${JSON.stringify(text)}: `);
  });

  test.each([
    ['true', 0],
    ['1', 0],
    ['false', undefined],
    ['', undefined],
  ])('TS_DERP_DISABLE_RTT_STATS=%s', (text, interval) => {
    expect(config([], { TS_DERP_DISABLE_RTT_STATS: text }).server.timeouts?.rttInterval).toBe(interval);
  });

  test('TS_DERP_DISABLE_RTT_STATS that is neither true nor false is refused', () => {
    expect(() => config([], { TS_DERP_DISABLE_RTT_STATS: 'no' })).toThrow(
      'invalid boolean environment variable TS_DERP_DISABLE_RTT_STATS value "no": must be',
    );
  });
});

describe('the command line is shown', () => {
  test.each([
    [
      ['-dev', '-a', ':1'],
      ['-dev', '-a', ':1'],
    ],
    [
      ['-acme-eab-key', 'secret', '-dev'],
      ['-acme-eab-key', '…', '-dev'],
    ],
    [
      ['--acme-eab-key=secret', '-dev'],
      ['-acme-eab-key=…', '-dev'],
    ],
    [
      ['-acme-eab-key', '-acme-eab-key', 'x'],
      ['-acme-eab-key', '…', 'x'],
    ],
    [
      ['-verify-client-url', 'https://me:pw@host/x'],
      ['-verify-client-url', 'https://…@host/x'],
    ],
    [['-verify-client-url=https://pw@host/x'], ['-verify-client-url=https://…@host/x']],
  ])('%j without secrets', (args, shown) => expect(shownCommandLine(args)).toEqual(shown));
});
