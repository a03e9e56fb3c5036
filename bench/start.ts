/** How long a relay's command takes from its start until it accepts connections. */
import type { ChildProcess } from 'node:child_process';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { type Command, freePort, START_TIMEOUT } from './peers.js';
import { spawnPinned, stop, tailOfErrors } from './process.js';

/** Milliseconds between two tries to connect: the resolution of the figure. */
const TRY_INTERVAL = 2;

/** Milliseconds. */
export async function timeStart(command: Command, cores: string, tls: boolean): Promise<number> {
  const port = await freePort();
  const [program, args] = command(port, tls);
  const startedAt = performance.now();
  const child = spawnPinned(cores, program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const log = tailOfErrors(child);
  try {
    while (!(await accepts(port))) {
      const problem = problemOf(child, performance.now() - startedAt);
      if (problem !== undefined) throw new Error(`${program}: ${problem}: ${log()}`);
      await delay(TRY_INTERVAL);
    }
    return performance.now() - startedAt;
  } finally {
    await stop(child);
  }
}

function problemOf(child: ChildProcess, elapsed: number): string | undefined {
  if (child.exitCode !== null) return `ended with exit code ${child.exitCode}`;
  return elapsed > START_TIMEOUT ? `does not listen after ${START_TIMEOUT} ms` : undefined;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
