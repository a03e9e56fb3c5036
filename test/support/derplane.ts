/** Runs the built command as operators do: a process of its own. */
import { type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { LineWatch } from './line_watch.js';

/** The repository. */
const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** The built command. */
export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs `derplane ARGS` to its end. */
export async function derplane(
  args: string[],
  env: NodeJS.ProcessEnv = {},
  stdio: StdioOptions = 'pipe',
): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, ...args], { env: { ...process.env, ...env }, stdio });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([
    child.stdout ? text(child.stdout) : '',
    child.stderr ? text(child.stderr) : '',
  ]);
  const [code, signal] = (await closed) as [number | null, NodeJS.Signals | null];
  return { code, signal, stdout, stderr };
}

export interface RelayProcess {
  pid: number;
  /** `host:port` as in the log. */
  address: string;
  port: number;
  /** Milliseconds from spawning to the log line that it serves. */
  startTime: number;
  /** What it wrote so far. */
  stderr(): string;
  stdout(): string;
  /** Resolves with the next line on stderr, from the start on, that matches. */
  line(pattern: RegExp): Promise<string>;
  kill(signal: NodeJS.Signals): void;
  /** Resolves once it ended. */
  ended: Promise<Ended>;
}

/**
 * Starts `derplane ARGS` and resolves once it serves; rejects with what it wrote if it ends before. Without a flag about STUN it serves
 * none: its port belongs to one relay of the machine.
 */
export async function startDerplane(args: string[], env: NodeJS.ProcessEnv = {}): Promise<RelayProcess> {
  const startedAt = performance.now();
  const stun = args.some((arg) => /^--?stun/.test(arg)) ? [] : ['-stun=false'];
  const child = spawn(process.execPath, [MAIN, ...stun, ...args], { env: { ...process.env, ...env }, stdio: 'pipe' });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    output.stdout += chunk;
  });
  const lines = new LineWatch('derplane', child.stderr);
  const ended = once(child, 'close').then(([code, signal]): Ended => {
    lines.end();
    return { code, signal, stdout: output.stdout, stderr: lines.all() };
  });
  const serving = await lines.line(/derper: serving on (\S+?)(?:"| |$)/);
  const address = serving.match(/derper: serving on ([^\s"]+)/)![1]!;
  return {
    pid: child.pid!,
    address,
    port: Number(address.slice(address.lastIndexOf(':') + 1)),
    startTime: performance.now() - startedAt,
    stdout: () => output.stdout,
    stderr: () => lines.all(),
    line: (pattern) => lines.line(pattern),
    kill: (signal) => void child.kill(signal),
    ended,
  };
}

/** Runs `npm ARGS` to its end, in the repository unless told otherwise. */
export async function runNpm(args: string[], cwd: string = ROOT): Promise<Ended> {
  const child = spawn('npm', args, { cwd, stdio: 'pipe' });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [code, signal] = (await closed) as [number | null, NodeJS.Signals | null];
  return { code, signal, stdout, stderr };
}
