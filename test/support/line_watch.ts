import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

/** The lines that a process writes, to be waited for. */
export class LineWatch {
  readonly #name: string;
  readonly #lines: string[] = [];
  readonly #waiting = new Set<{ pattern: RegExp; resolve: (line: string) => void; reject: (error: Error) => void }>();
  #ended = false;

  /** `name` is for errors. */
  constructor(name: string, ...streams: Readable[]) {
    this.#name = name;
    for (const stream of streams) createInterface({ input: stream }).on('line', (line) => this.#add(line));
  }

  /** What was written so far. */
  all(): string {
    return this.#lines.map((line) => `${line}\n`).join('');
  }

  /** Resolves with the first line, from the start on, that matches; rejects if the process ends without it. */
  next(pattern: RegExp): Promise<string> {
    const found = this.#lines.find((line) => pattern.test(line));
    if (found !== undefined) return Promise.resolve(found);
    if (this.#ended) return Promise.reject(this.#endedWithout(pattern));
    return new Promise((resolve, reject) => this.#waiting.add({ pattern, resolve, reject }));
  }

  /** Call it when the process ended and its streams are closed. */
  end(): void {
    this.#ended = true;
    for (const { pattern, reject } of this.#waiting) reject(this.#endedWithout(pattern));
    this.#waiting.clear();
  }

  #add(line: string): void {
    this.#lines.push(line);
    for (const waiter of this.#waiting) {
      if (!waiter.pattern.test(line)) continue;
      this.#waiting.delete(waiter);
      waiter.resolve(line);
    }
  }

  #endedWithout(pattern: RegExp): Error {
    return new Error(`${this.#name} ended without a line ${pattern}:\n${this.all()}`);
  }
}
