import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { LineWatch } from '../support/line_watch.js';

/** Milliseconds that one wait for a program may take. */
const PATIENCE = 90_000;

/** A program that runs on a host of the network. */
export class Program {
  readonly name: string;
  readonly stdin: NodeJS.WritableStream;
  /** Exit code, or `null` if a signal ended it. */
  readonly ended: Promise<number | null>;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: LineWatch;

  constructor(name: string, child: ChildProcessWithoutNullStreams) {
    this.name = name;
    this.stdin = child.stdin;
    this.#child = child;
    this.#lines = new LineWatch(name, child.stdout, child.stderr);
    this.ended = once(child, 'close').then(([code]) => {
      this.#lines.end();
      return code as number | null;
    });
  }

  /** What it wrote so far, to either output. */
  output(): string {
    return this.#lines.all();
  }

  /** Resolves with the first line it ever wrote that matches, once there have been `count`; rejects if it ends or `PATIENCE` passes without one. */
  line(pattern: RegExp, count = 1): Promise<string> {
    return this.#withPatience(this.#lines.line(pattern, count), `no line ${pattern}`);
  }

  /** Resolves with what it wrote once it ended; rejects if that was not with 0. */
  async succeeded(): Promise<string> {
    const code = await this.#withPatience(this.ended, 'no end');
    if (code !== 0) throw new Error(`${this.name} ended with ${code}:\n${this.output()}`);
    return this.output();
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Kills it and waits for its end. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  async #withPatience<T>(result: Promise<T>, missing: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const reason = `${this.name}: ${missing} within ${PATIENCE / 1000} s:\n`;
      timer = setTimeout(() => reject(new Error(`${reason}${this.output()}`)), PATIENCE);
    });
    return Promise.race([result, late]).finally(() => clearTimeout(timer));
  }
}
