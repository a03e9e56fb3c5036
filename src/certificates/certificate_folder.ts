/** The folder of certificates and keys on disk. */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Bytes of a file that is read; a chain with its key has less than ten thousand. */
const MAX_SIZE = 1024 * 1024;

export interface FolderEntry {
  name: string;
  text: string;
  /** Permissions; default 0600. */
  mode?: number;
}

/** Files that are written whole and durably, or not at all. Errors are those of the system, with the file's path. */
export class CertificateFolder {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  pathOf(name: string): string {
    return join(this.#path, name);
  }

  /** What is in the file, or `undefined` when there is none. */
  async read(name: string): Promise<string | undefined> {
    const path = this.pathOf(name);
    try {
      const { size } = await stat(path);
      if (size > MAX_SIZE) throw new Error(`${path}: ${size} bytes are too many for a certificate or key`);
      return await readFile(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Makes the folder (0700) where there is none. */
  async make(): Promise<void> {
    await mkdir(this.#path, { recursive: true, mode: 0o700 });
  }

  /** Writes files that belong together: none is replaced before all are on disk beside their old ones. */
  async write(entries: FolderEntry[]): Promise<void> {
    const staged: { temporary: string; path: string }[] = [];
    try {
      await this.make();
      for (const { name, text, mode = 0o600 } of entries) {
        const temporary = this.pathOf(`.${name}.${randomBytes(6).toString('hex')}`);
        staged.push({ temporary, path: this.pathOf(name) });
        await writeSynced(temporary, text, mode);
      }
      for (const { temporary, path } of staged) await rename(temporary, path);
      await syncFolder(this.#path);
    } catch (error) {
      throw new Error(`${this.#path}: ${(error as Error).message}`, { cause: error });
    } finally {
      for (const { temporary } of staged) await rm(temporary, { force: true });
    }
  }

  /** Removes a file; none is fine. */
  async remove(name: string): Promise<void> {
    await rm(this.pathOf(name), { force: true });
  }
}

async function writeSynced(path: string, text: string, mode: number): Promise<void> {
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
