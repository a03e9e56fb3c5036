/** A relay that runs out of file descriptors serves again as soon as there are some. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrivateKey, RelayClient } from 'derplane';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { MAIN } from './support/derplane.js';
import { expectRelay } from './support/exchange.js';
import { LineWatch } from './support/line_watch.js';
import { freePort } from './support/ports.js';

/** More than the relay has descriptors. */
const STRANGERS = 120;

let folder: string;
let port: number;
let lines: LineWatch;
let end: () => Promise<void>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-descriptors-'));
  port = await freePort();
  const args = [MAIN, '-a', `127.0.0.1:${port}`, '-c', join(folder, 'derper.key'), '-shards=1', '-stun=false'];
  const child = spawn('/bin/sh', ['-c', 'ulimit -n 80; exec "$@"', 'sh', process.execPath, ...args], { stdio: 'pipe' });
  lines = new LineWatch('derplane', child.stderr);
  const ended = once(child, 'close');
  end = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  await lines.line(/serving on/);
});

afterEach(async () => {
  await end();
  await rm(folder, { recursive: true });
});

test('clients that take all descriptors at once leave the relay its own: new ones exchange packets once they are gone', async () => {
  const url = `http://127.0.0.1:${port}/derp`;
  const strangers = Array.from({ length: STRANGERS }, () => new RelayClient(PrivateKey.generate(), url));
  try {
    for (const client of strangers) client.connect().catch(() => {});
    await lines.line(/accept: EMFILE/);
  } finally {
    for (const client of strangers) client.close();
  }
  await lines.line(/accept: accepts again, after \d+ failures \(EMFILE\)/);
  await expectRelay(url);
  expect(lines.lines.filter((line) => line.includes('handshake thread ended'))).toEqual([]);
});

test('silent connections that take all descriptors are ended for newcomers, and counted', async () => {
  const silent: Socket[] = [];
  try {
    for (let n = 0; n < STRANGERS; n++) silent.push(connect(port, '127.0.0.1').on('error', () => {}));
    await lines.line(/accept: EMFILE/);
    await expectRelay(`http://127.0.0.1:${port}/derp`);
    const metrics = await (await fetch(`http://127.0.0.1:${port}/debug/varz`)).text();
    const [, count] = /^derplane_evicted_connections_total\{reason="file_descriptors"\} (\d+)$/m.exec(metrics) ?? [];
    expect(Number(count)).toBeGreaterThan(0);
  } finally {
    for (const socket of silent) socket.destroy();
  }
});
