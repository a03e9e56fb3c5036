/** Places that a program's output goes to, and that fail or stall. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** A pipe that is full: whoever writes to it waits until it is read. */
export class FullPipe {
  /** For the program's `stdio`, and read from here. */
  readonly fd: number;
  #filled = 0;

  /** @param nonBlocking - the program's writes fail with EAGAIN instead of waiting */
  constructor(folder: string, nonBlocking: boolean) {
    const path = join(folder, `pipe-${process.hrtime.bigint()}`);
    execFileSync('mkfifo', [path]);
    const filler = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    this.fd = openSync(path, constants.O_RDWR | (nonBlocking ? constants.O_NONBLOCK : 0));
    const line = Buffer.from(`${'x'.repeat(4095)}\n`);
    try {
      for (;;) this.#filled += writeSync(filler, line);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    } finally {
      closeSync(filler);
    }
  }

  /** Makes room: what filled the pipe is read. */
  drain(): void {
    const buffer = Buffer.alloc(4096);
    while (this.#filled > 0) this.#filled -= readSync(this.fd, buffer, 0, Math.min(this.#filled, buffer.length), null);
  }

  /** What has been written and not read. */
  read(): string {
    const buffer = Buffer.alloc(65_536);
    try {
      return buffer.toString('utf8', 0, readSync(this.fd, buffer));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return '';
      throw error;
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}
