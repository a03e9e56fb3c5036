/** Small files that somebody else wrote. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';

/** Bytes that one call reads. */
const CHUNK = 64 << 10;

/**
 * What is in a file. Waits for what a pipe brings.
 *
 * @param maxSize - bytes
 * @throws the system's error, or one that says that the file is too big
 */
export function readBounded(path: string, maxSize: number): Buffer {
  return read(path, constants.O_RDONLY, (fd) => readOpen(fd, maxSize));
}

/** As {@link readBounded}, of files that are read while others wait: never waits. @throws also for anything but a regular file */
export function readRegular(path: string, maxSize: number): Buffer {
  return read(path, constants.O_RDONLY | constants.O_NONBLOCK, (fd) => {
    if (!fstatSync(fd).isFile()) throw new Error('it must be a regular file');
    return readOpen(fd, maxSize);
  });
}

function read(path: string, flags: number, body: (fd: number) => Buffer): Buffer {
  const fd = openSync(path, flags);
  try {
    return body(fd);
  } finally {
    closeSync(fd);
  }
}

/** A file may grow while it is read, and a device has no size. */
function readOpen(fd: number, maxSize: number): Buffer {
  const { size } = fstatSync(fd);
  const tooMany = (count: number | string) => new Error(`${count} bytes are too many (${maxSize} at most)`);
  if (size > maxSize) throw tooMany(size);
  const chunks: Buffer[] = [];
  let total = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(CHUNK);
    const count = readSync(fd, chunk);
    if (count === 0) return Buffer.concat(chunks, total);
    total += count;
    if (total > maxSize) throw tooMany(`over ${maxSize}`);
    chunks.push(chunk.subarray(0, count));
  }
}

/** As {@link readBounded}; undefined when there is no such file. */
export function readIfThere(path: string, maxSize: number): Buffer | undefined {
  try {
    return readBounded(path, maxSize);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
