import type { Logger } from 'derplane';

/** A logger whose lines can be waited for. */
export class LogWatch implements Logger {
  readonly lines: string[] = [];
  readonly #waiting = new Set<() => void>();

  debug(_fields: object, message: string): void {
    this.#add(`DEBUG ${message}`);
  }

  info(_fields: object, message: string): void {
    this.#add(`INFO ${message}`);
  }

  warn(_fields: object, message: string): void {
    this.#add(`WARN ${message}`);
  }

  error(_fields: object, message: string): void {
    this.#add(`ERROR ${message}`);
  }

  /** Resolves with the first line that matches, once there have been `count` of them. */
  async line(pattern: RegExp, count = 1): Promise<string> {
    for (;;) {
      const found = this.lines.filter((line) => pattern.test(line));
      if (found.length >= count) return found[0] as string;
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  #add(line: string): void {
    this.lines.push(line);
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}
