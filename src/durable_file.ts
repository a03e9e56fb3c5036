/** Files that are whole or not there: after a crash, a full disk, or when two processes write at once. */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';

/**
 * Makes a file that is not there yet, and its missing folders (mode 0700).
 *
 * @param mode - permissions of the file, as `0o600`
 * @returns false when there is such a file, which stays as it is
 * @throws the system's error; nothing is left behind then
 */
export function createFile(path: string, text: string, mode: number): boolean {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  try {
    // Unlike a rename, a link never replaces what is there.
    place(path, text, mode, (temporary) => linkSync(temporary, path));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST' && isFile(path)) return false;
    throw error;
  }
}

/**
 * Puts `text` in the place of what `path` holds, if anything. Arguments as {@link createFile}.
 *
 * @throws the system's error; what was there stays then
 */
export function replaceFile(path: string, text: string, mode: number): void {
  place(path, text, mode, (temporary) => renameSync(temporary, path));
}

function place(path: string, text: string, mode: number, put: (temporary: string) => void): void {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${randomBytes(6).toString('hex')}`);
  try {
    writeDurably(temporary, text, mode);
    put(temporary);
    syncFolder(folder);
  } finally {
    rmSync(temporary, { force: true });
  }
}

function writeDurably(path: string, text: string, mode: number): void {
  const fd = openSync(path, 'wx', mode);
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/** `EACCES: permission denied` of `EACCES: permission denied, open '/x'`. */
export function reasonOf(error: unknown): string {
  return (error as Error).message.split(',')[0] as string;
}
