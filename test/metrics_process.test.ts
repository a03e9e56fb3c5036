/** Figures of the process tell of all of its life, the first time that they are asked for too. */
import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { skipBecause } from './support/go_programs.js';
import { type Family, parsePrometheus } from './support/prometheus.js';

const module = (path: string) => JSON.stringify(new URL(`../dist/${path}`, import.meta.url).href);

/** Runs a script that may call `scrape()`, in a process of its own; what it prints as JSON. */
function run<T = Record<string, number>>(script: string): T {
  const source = `
    import { debugPages } from ${module('http/debug_pages.js')};
    import { readFigures } from ${module('http/debug_vars.js')};
    import { setTimeout as sleep } from 'node:timers/promises';
    const scrape = async () => {
      const { metricsText } = await import(${module('http/metrics_text.js')});
      const text = await metricsText(readFigures({ relay: undefined, version: '0' }));
      return Object.fromEntries([...text.matchAll(/^(\\w+) (\\S+)$/gm)].map(([, name, value]) => [name, Number(value)]));
    };
    const block = (ms) => { const end = performance.now() + ms; while (performance.now() < end); };
    debugPages();
    ${script}`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout);
}

test('CPU time counts from the start of the process', () => {
  const { found, used } = run<{ found: Record<string, number>; used: number }>(`
    block(300);
    const before = process.cpuUsage();
    const found = await scrape();
    console.log(JSON.stringify({ found, used: (before.user + before.system) / 1e6 }));`);
  expect(found['process_cpu_seconds_total']).toBeGreaterThanOrEqual(used);
  const parts = found['process_cpu_user_seconds_total']! + found['process_cpu_system_seconds_total']!;
  expect(parts).toBeCloseTo(found['process_cpu_seconds_total']!, 1);
});

describe('the lag of the event loop', () => {
  const FIGURES = ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99'].map(
    (name) => `nodejs_eventloop_lag_${name}_seconds`,
  );

  test('is a small number without a sample', () => {
    const found = run('console.log(JSON.stringify(await scrape()));');
    for (const name of [...FIGURES, 'nodejs_eventloop_lag_seconds']) {
      expect(found[name], name).toBeGreaterThanOrEqual(0);
      expect(found[name], name).toBeLessThan(60);
    }
  });

  test('does not hold the sampling interval', () => {
    const { idle } = run(`
      const quietest = async () => {
        await sleep(500);
        return (await scrape()).nodejs_eventloop_lag_min_seconds;
      };
      await scrape();
      console.log(JSON.stringify({ idle: Math.min(await quietest(), await quietest()) }));`);
    expect(idle).toBeLessThan(0.04);
  });

  test('holds what blocked the thread before the first scrape', () => {
    const found = run(`
      await sleep(100);
      block(400);
      await sleep(100);
      console.log(JSON.stringify(await scrape()));`);
    expect(found['nodejs_eventloop_lag_max_seconds']).toBeGreaterThan(0.3);
  });
});

const promtool = spawnSync('promtool', ['--version']);
const noPromtool = skipBecause(
  promtool.error === undefined ? undefined : 'there is no promtool (Debian package prometheus) to check metrics with',
);

describe.skipIf(noPromtool !== undefined)('promtool', () => {
  /** The text of some families. */
  const textOf = (families: Map<string, Family>) =>
    [...families]
      .map(([name, { help, type, samples }]) =>
        [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...[...samples].map(([key, value]) => `${key} ${value}`)]
          .map((line) => `${line}\n`)
          .join(''),
      )
      .join('');

  const check = (input: string) => spawnSync('promtool', ['check', 'metrics'], { input, encoding: 'utf8' });

  test('finds nothing wrong with our own metrics, nor with those of the process', async () => {
    const { PrivateKey, Server } = await import('derplane');
    const { readFigures } = await import('../dist/http/debug_vars.js');
    const { metricsText } = await import('../dist/http/metrics_text.js');
    const server = new Server(PrivateKey.generate(), { shards: 2 });
    const certificates = [{ name: 'derp.example.com', notAfter: new Date(Date.now() + 1e9) }];
    const text = await metricsText(readFigures({ relay: server, version: '0', certificates: () => certificates }));
    await server.close();
    // The others have the names of derper, which keeps to no rule.
    const ours = [...parsePrometheus(text)].filter(([name]) => /^(?:derplane|process|nodejs)_/.test(name));
    expect(ours.length).toBeGreaterThan(40);
    const { stdout, stderr } = check(textOf(new Map(ours.filter(([name]) => name !== 'process_start_unix_time'))));
    expect(stdout + stderr).toBe('');
  });

  test('reads the whole page', async () => {
    const { readFigures } = await import('../dist/http/debug_vars.js');
    const { metricsText } = await import('../dist/http/metrics_text.js');
    // Status 3: lint only.
    expect([0, 3]).toContain(check(await metricsText(readFigures({ relay: undefined, version: '0' }))).status);
  });
});
