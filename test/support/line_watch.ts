import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

/** The lines that somebody writes, to be waited for. */
export class LineWatch {
  readonly lines: string[] = [];
  readonly #name: string;
  readonly #waiting = new Set<() => void>();
  #ended = false;

  /**
   * @param name - for errors
   * @param streams - what a process writes
   */
  constructor(name: string, ...streams: Readable[]) {
    this.#name = name;
    for (const stream of streams) createInterface({ input: stream }).on('line', (line) => this.add(line));
  }

  /** What was written so far. */
  all(): string {
    return this.lines.map((line) => `${line}\n`).join('');
  }

  /** Resolves with the first line, from the start on, that matches, once there have been `count` of them; rejects if it ends before. */
  async line(pattern: RegExp, count = 1): Promise<string> {
    for (;;) {
      const found = this.lines.filter((line) => pattern.test(line));
      if (found.length >= count) return found[0] as string;
      if (this.#ended) throw new Error(`${this.#name} ended without a line ${pattern}:\n${this.all()}`);
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  add(line: string): void {
    this.lines.push(line);
    this.#wake();
  }

  /** Call it when the process ended and its streams are closed. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}
