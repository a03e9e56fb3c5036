/** Small files that somebody else wrote. */
import { readFileSync, statSync } from 'node:fs';

/**
 * What is in a file.
 *
 * @param maxSize - bytes
 * @throws the system's error, or one that says that the file is too big
 */
export function readBounded(path: string, maxSize: number): Buffer {
  const { size } = statSync(path);
  if (size > maxSize) throw new Error(`${size} bytes are too many (${maxSize} at most)`);
  return readFileSync(path);
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
