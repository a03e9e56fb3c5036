/** Files that are whole or not there: after a crash, a full disk, or when two processes write at once. */
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

export interface FileContent {
  path: string;
  text: string;
  /** Permissions, as `0o600`. */
  mode: number;
}

/**
 * Makes a file that is not there yet, and its missing folders (mode 0700).
 *
 * @returns false when the file exists; it stays unchanged
 * @throws the system's error; nothing is left behind then
 */
export async function createFile(file: FileContent): Promise<boolean> {
  await mkdir(dirname(file.path), { recursive: true, mode: 0o700 });
  try {
    // Unlike a rename, a link never replaces what is there.
    await place([file], link);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST' && (await isFile(file.path))) return false;
    throw error;
  }
}

/**
 * Puts files that belong together, of one folder, in the place of what is there, if anything: none is replaced before all are on disk.
 *
 * @throws the system's error; before the first is replaced, what was there stays
 */
export async function replaceFiles(...files: FileContent[]): Promise<void> {
  await place(files, rename);
}

async function place(files: FileContent[], put: (from: string, to: string) => Promise<void>): Promise<void> {
  const staged: { temporary: string; path: string }[] = [];
  try {
    for (const { path, text, mode } of files) {
      const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`);
      staged.push({ temporary, path });
      await writeDurably(temporary, text, mode);
    }
    for (const { temporary, path } of staged) await put(temporary, path);
    for (const folder of new Set(files.map(({ path }) => dirname(path)))) await syncFolder(folder);
  } finally {
    for (const { temporary } of staged) await rm(temporary, { force: true });
  }
}

async function writeDurably(path: string, text: string, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}
