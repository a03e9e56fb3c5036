/** Child processes of the bench: pinned to a core, ended for sure. */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';

const STOP_TIMEOUT = 5_000;

/** Whether processes can be pinned; without it relay and load disturb each other and figures are worth less. */
export const canPin = spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0;

/** Children that run now; none of them may outlive the bench. */
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => process.exit(128 + constants.signals[signal]));
}

/** Starts a program on the given cores (a list as `taskset` takes it). */
export function spawnPinned(cores: string, command: string, args: string[], options: SpawnOptions): ChildProcess {
  const child = canPin ? spawn('taskset', ['-c', cores, command, ...args], options) : spawn(command, args, options);
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}

/** SIGTERM, and SIGKILL when that did not help. */
export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT);
  await ended;
  clearTimeout(timer);
}

/** The end of what a child that was started with a pipe writes to stderr. */
export function tailOfErrors(child: ChildProcess): () => string {
  let tail = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    tail = (tail + text).slice(-4_000);
  });
  return () => tail;
}

/** The next message of a child that was started with an IPC channel. Rejects when it ends first, or after `timeout` milliseconds. */
export function nextMessage<T>(child: ChildProcess, what: string, timeout: number): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const settle = (action: () => void) => {
      clearTimeout(timer);
      child.off('message', onMessage).off('exit', onExit).off('error', onError);
      action();
    };
    const onMessage = (message: unknown) => settle(() => resolve(message as T));
    const onError = (error: Error) => settle(() => reject(error));
    const onExit = (code: number | null, signal: string | null) =>
      settle(() => reject(new Error(`${what} ended (${signal ?? `exit code ${code}`}) instead of answering`)));
    const timer = setTimeout(() => settle(() => reject(new Error(`${what}: no answer in ${timeout} ms`))), timeout);
    child.on('message', onMessage).on('exit', onExit).on('error', onError);
  });
}
