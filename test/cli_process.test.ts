/** The relay as a process: its signals, its threads, and how npm runs it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PrivateKey, RelayClient } from 'derplane';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { threadName } from '../dist/thread_name.js';
import { MAIN, type RelayProcess, startDerplane } from './support/derplane.js';
import { expectRelay } from './support/exchange.js';
import { LineWatch } from './support/line_watch.js';
import { freePort, isListening } from './support/ports.js';

let folder: string;
let relay: RelayProcess | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-process-'));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

afterEach(async () => {
  relay?.kill('SIGKILL');
  await relay?.ended;
  relay = undefined;
});

async function start(args: string[]): Promise<RelayProcess> {
  relay = await startDerplane(['-a=127.0.0.1:0', '-c', join(folder, 'derper.key'), '-stun=false', ...args]);
  return relay;
}

/** The names of a process' threads. */
function threads(pid: number): string[] {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).map((tid) => readFileSync(join(tasks, tid, 'comm'), 'utf8').trim());
}

test('SIGUSR1 opens no inspector: the relay goes on and logs it, within bounds', async () => {
  const { address, kill, line, stderr } = await start(['-shards=2']);
  kill('SIGUSR1');
  await line(/INFO {2}SIGUSR1: derplane does not use this signal/);
  await expectRelay(`http://${address}/derp`);
  expect(stderr()).not.toContain('Debugger');
});

test('threads have names', async () => {
  const { pid, address } = await start(['-shards=2', '-handshake-threads=2']);
  await expectRelay(`http://${address}/derp`);
  const expected = ['derplane:hs0', 'derplane:hs1', 'derplane:log', 'derplane:shard0', 'derplane:shard1'];
  await expect.poll(() => threads(pid), { timeout: 30_000 }).toEqual(expect.arrayContaining(expected));
});

test.each([
  ['shard', 0, 'derplane:shard0'],
  ['shard', 10, 'derplane:shar10'],
  ['shard', 62, 'derplane:shar62'],
  ['hs', 63, 'derplane:hs63'],
])('%s %i is named %s, which Linux keeps whole', (kind, index, name) => {
  expect(threadName(kind, index)).toBe(name);
  expect(name.length).toBeLessThan(16);
});

test.each(['SIGTERM', 'SIGINT'] as const)('%s for npm start ends the relay', async (signal) => {
  // The script as npm has it, with a build that takes no time and a port that is free.
  const { scripts } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  const [build, run] = (scripts.start as string).split(' && ') as [string, string];
  expect(build).toBe('npm run --silent build');
  const port = await freePort();
  const script = run.replace('dist/cli/main.js -dev', `${MAIN} -a 127.0.0.1:${port} -c derper.key -shards=1`);
  await writeFile(join(folder, 'package.json'), JSON.stringify({ scripts: { start: `true && ${script}` } }));
  const npm = spawn('npm', ['start'], { cwd: folder, stdio: 'ignore', detached: true });
  const ended = once(npm, 'exit');
  await expect.poll(() => isListening(port), { timeout: 30_000 }).toBe(true);
  npm.kill(signal);
  await ended;
  await expect.poll(() => isListening(port), { timeout: 30_000 }).toBe(false);
});

test('running out of file descriptors is logged as it starts and as it ends, not in between', async () => {
  const port = await freePort();
  const args = [MAIN, '-a', `127.0.0.1:${port}`, '-c', join(folder, 'derper.key'), '-shards=1', '-stun=false'];
  const child = spawn('/bin/sh', ['-c', 'ulimit -n 80; exec "$@"', 'sh', process.execPath, ...args], { stdio: 'pipe' });
  const lines = new LineWatch('derplane', child.stderr);
  const ended = once(child, 'close');
  const clients: RelayClient[] = [];
  try {
    await lines.line(/serving on/);
    const all = Array.from(
      { length: 80 },
      () => new RelayClient(PrivateKey.generate(), `http://127.0.0.1:${port}/derp`),
    );
    clients.push(...all);
    for (const client of all) client.connect().catch(() => {});
    await lines.line(/accept: EMFILE/);
    // Ten more attempts of the listener, which each fail.
    await sleep(1_500);
    for (const client of all) client.close();
    await lines.line(/accept: accepts again, after \d+ failures \(EMFILE\)/);
    expect(lines.lines.filter((line) => /accept: .*EMFILE/.test(line))).toHaveLength(2);
  } finally {
    for (const client of clients) client.close();
    child.kill('SIGKILL');
    await ended;
  }
});
