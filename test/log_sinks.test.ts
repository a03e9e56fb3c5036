/** A log that cannot be written costs lines, never the relay. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, truncateSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../dist/native.js';
import { derplane, MAIN } from './support/derplane.js';
import { expectRelay } from './support/exchange.js';
import { freePort, isListening } from './support/ports.js';
import { FullPipe } from './support/sinks.js';

let folder: string;
const children: ChildProcess[] = [];
const pipes: FullPipe[] = [];
const descriptors: number[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-sinks-'));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
  for (const pipe of pipes.splice(0)) pipe.close();
  for (const fd of descriptors.splice(0)) closeSync(fd);
});

interface Relay {
  child: ChildProcess;
  port: number;
}

/** Starts a relay whose output goes to `stdout` and `stderr`, and resolves once it serves. `limit`: shell commands before it. */
async function start(
  stdout: number | 'pipe' | 'ignore',
  stderr: number | 'pipe',
  args: string[] = [],
  limit = '',
): Promise<Relay> {
  const port = await freePort();
  const all = [MAIN, '-a', `127.0.0.1:${port}`, '-c', join(folder, 'derper.key'), '-shards=1', '-stun=false', ...args];
  const child = spawn('/bin/sh', ['-c', `${limit} exec "$@"`, 'sh', process.execPath, ...all], {
    stdio: ['ignore', stdout, stderr],
  });
  children.push(child);
  while (!(await isListening(port))) {
    if (child.exitCode !== null) throw new Error(`the relay ended with code ${child.exitCode}`);
    await sleep(50);
  }
  return { child, port };
}

async function expectServes({ child, port }: Relay): Promise<void> {
  await expectRelay(`http://127.0.0.1:${port}/derp`);
  expect((await fetch(`http://127.0.0.1:${port}/derp/probe`)).status).toBe(200);
  expect((await fetch(`http://127.0.0.1:${port}/nothing`, { headers: { Connection: 'close' } })).status).toBe(200);
  expect(child.exitCode).toBe(null);
}

async function expectEnds({ child }: Relay): Promise<void> {
  child.kill('SIGTERM');
  await once(child, 'exit');
  expect({ code: child.exitCode, signal: child.signalCode }).toEqual({ code: 0, signal: null });
}

async function lost({ port }: Relay): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${port}/debug/varz`)).text();
  return Number(text.match(/^derplane_log_lines_lost_total (\d+)$/m)![1]);
}

/** Resolves once `condition` holds. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(20);
}

const FORMATS = [
  ['text', 'info'],
  ['text', 'debug'],
  ['json', 'info'],
  ['json', 'debug'],
];

describe.each(FORMATS)('with %s lines at level %s', (format, level) => {
  const args = ['-log-format', format!, '-log-level', level!];

  test('a full device as stderr and stdout costs lines, which are counted', async () => {
    const full = openSync('/dev/full', 'w');
    descriptors.push(full);
    const relay = await start(full, full, args);
    await expectServes(relay);
    await until(async () => (await lost(relay)) >= 2);
    await expectEnds(relay);
  });

  test('a closed pipe costs lines, which are counted', async () => {
    const relay = await start('pipe', 'pipe', args);
    relay.child.stdout!.destroy();
    relay.child.stderr!.destroy();
    relay.child.kill('SIGHUP');
    await expectServes(relay);
    await until(async () => {
      relay.child.kill('SIGHUP');
      return (await lost(relay)) >= 1;
    });
    await expectServes(relay);
    await expectEnds(relay);
  });

  test.each([
    ['waits for room', false],
    ['is refused with EAGAIN', true],
  ])('a pipe that nobody reads delays nothing, where a write %s', async (_, nonBlocking) => {
    const pipe = new FullPipe(folder, nonBlocking);
    pipes.push(pipe);
    const relay = await start('ignore', pipe.fd, args);
    await expectServes(relay);
    pipe.drain();
    let read = '';
    await until(() => {
      read += pipe.read();
      return /derper: serving on/.test(read);
    });
    expect(await lost(relay)).toBe(0);
    await expectEnds(relay);
  });

  test('when a disk has room again, the first line tells how many were lost', async () => {
    const path = join(folder, `log-${format}-${level}`);
    const file = openSync(path, 'a');
    descriptors.push(file);
    // 2 KiB: the first lines fit, later ones do not. After the truncation, lines about clients fit before the one awaited.
    const relay = await start('ignore', file, args, 'ulimit -f 4;');
    await until(async () => {
      relay.child.kill('SIGHUP');
      return (await lost(relay)) >= 5;
    });
    await expectServes(relay);
    truncateSync(path);
    await until(() => {
      relay.child.kill('SIGHUP');
      return readFileSync(path, 'utf8').includes('nothing to reload');
    });
    const [first, second] = readFileSync(path, 'utf8').trimStart().split('\n');
    expect(first).toMatch(/(\d+) log lines were lost: EFBIG: file too large/);
    expect(second).toMatch(/nothing to reload|client/);
    expect(Number(first!.match(/(\d+) log lines/)![1])).toBe(await lost(relay));
    if (format === 'json') expect(JSON.parse(first!)).toMatchObject({ level: 'warn', lost: await lost(relay) });
    await expectEnds(relay);
  });
});

test('a pipe that nobody reads keeps the relay from ending for a moment only', async () => {
  const pipe = new FullPipe(folder, false);
  pipes.push(pipe);
  const relay = await start('ignore', pipe.fd);
  await expectEnds(relay);
});

test('DERP maps go to a full or stalled stdout as well', async () => {
  const full = openSync('/dev/full', 'w');
  descriptors.push(full);
  const pipe = new FullPipe(folder, false);
  pipes.push(pipe);
  const tls = ['-certmode=manual', '-hostname=127.0.0.1', '-certdir', join(folder, 'certs'), '-http-port=-1'];
  for (const stdout of [full, pipe.fd]) {
    const relay = await start(stdout, 'pipe', tls);
    let log = '';
    relay.child.stderr!.on('data', (chunk) => {
      log += chunk;
    });
    await until(() => /serving on/.test(log));
    expect(log).toMatch(/^\{"Name":"custom"/m);
    await expectEnds(relay);
  }
});

test('lines beyond the bound are lost and counted, and the notice stands where they were', async () => {
  const pipe = new FullPipe(folder, false);
  pipes.push(pipe);
  const writer = new native.LineWriter(pipe.fd, 100);
  const line = `${'l'.repeat(39)}\n`;
  for (let n = 0; n < 5; n++) writer.write(line, '', 0);
  expect({ lost: writer.lost, unreported: writer.unreported, error: writer.lastError }).toEqual({
    lost: 3,
    unreported: 3,
    error: '',
  });
  expect(writer.flush(1)).toBe(false);
  pipe.drain();
  expect(writer.flush(60_000)).toBe(true);
  writer.write('next\n', 'notice\n', 3);
  expect(writer.flush(60_000)).toBe(true);
  expect({ lost: writer.lost, unreported: writer.unreported }).toEqual({ lost: 3, unreported: 0 });
  expect(pipe.read()).toBe(`${line}${line}notice\nnext\n`);
});

describe('commands that print and end', () => {
  test.each([
    ['-version', 1, /^derplane: cannot write to stdout: ENOSPC: no space left on device\n$/],
    ['-h', 0, /^Usage of derplane/],
  ])('%s with a full stdout', async (flag, code, message) => {
    const full = openSync('/dev/full', 'w');
    descriptors.push(full);
    const ended = await derplane([flag], {}, ['ignore', full, 'pipe']);
    expect(ended.code).toBe(code);
    expect(ended.stderr).toMatch(message);
  });

  test.each([
    [['-h'], 0],
    [['-nonsense'], 2],
    [['-a', 'nonsense'], 1],
  ])('%j keeps its exit code with a full stderr', async (args, code) => {
    const full = openSync('/dev/full', 'w');
    descriptors.push(full);
    const ended = await derplane(args, {}, ['ignore', 'pipe', full]);
    expect(ended.code).toBe(code);
  });
});
