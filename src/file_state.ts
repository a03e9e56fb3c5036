/** Files that somebody else replaces while we run. */
import { statSync } from 'node:fs';

/** Milliseconds between two looks at a file: a `stat` call. They find what a watch of the folder misses, as a link's far end. */
export const POLL_INTERVAL = 1_000;

/** A text that changes when a file, or the end of a link, becomes another. */
export function stateOf(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unreadable';
  }
}

/** Calls back when a file has changed, and then stayed as it is for one interval: then no write is under way. */
export class FileWatch {
  readonly #path: string;
  readonly #timer: NodeJS.Timeout;
  readonly #changed: () => void;
  /** The state that was dealt with. */
  #settled: string;
  /** The state at the last look. */
  #seen: string;

  /** @param interval - milliseconds */
  constructor(path: string, changed: () => void, interval = POLL_INTERVAL) {
    this.#path = path;
    this.#changed = changed;
    this.#settled = this.#seen = stateOf(path);
    this.#timer = setInterval(() => this.#look(), interval).unref();
  }

  /** The file is read now, so what it is now needs no call. To be called before reading. */
  settle(): void {
    this.#settled = this.#seen = stateOf(this.#path);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const state = stateOf(this.#path);
    const isStill = state === this.#seen;
    this.#seen = state;
    if (!isStill || state === this.#settled) return;
    this.#settled = state;
    this.#changed();
  }
}
