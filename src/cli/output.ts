/** Output of commands that print and exit. Writes block, so that a slow reader gets everything. */
import { writeSync } from 'node:fs';
import { reasonOf } from '../errors.js';
import { StartError } from './exit.js';

/** Milliseconds between two attempts to write to a descriptor in non-blocking mode. */
const RETRY_INTERVAL = 20;

/**
 * Prints `text` on stdout.
 *
 * @throws {@link StartError} when writing fails
 */
export function printOut(text: string): void {
  try {
    writeAll(1, text);
  } catch (error) {
    throw new StartError(`cannot write to stdout: ${reasonOf(error)}`, { cause: error });
  }
}

/** Prints `text` on stderr. Ignores a failure: there is nowhere else to report it, and the exit code still counts. */
export function printError(text: string): void {
  try {
    writeAll(2, text);
  } catch {
    // See above.
  }
}

function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  let done = 0;
  while (done < bytes.length) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_INTERVAL);
    }
  }
}
