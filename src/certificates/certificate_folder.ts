/** The folder of certificates and keys on disk. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readIfThere } from '../bounded_file.js';
import { createFile, replaceFiles } from '../durable_file.js';

/** Bytes of a file that is read; a chain with its key has less than ten thousand. */
const MAX_SIZE = 1024 * 1024;

export interface FolderEntry {
  name: string;
  text: string;
  /** Permissions; default 0600. */
  mode?: number;
}

/** Its files by their names. They are written whole and durably, or not at all; errors name path and reason. */
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
      return readIfThere(path, MAX_SIZE)?.toString();
    } catch (error) {
      throw new Error(`${path}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** Makes the folder (0700) where there is none. */
  async make(): Promise<void> {
    await mkdir(this.#path, { recursive: true, mode: 0o700 });
  }

  /** Writes a file that is not there yet; false when there is one, which stays. */
  async create({ name, text, mode = 0o600 }: FolderEntry): Promise<boolean> {
    try {
      return await createFile({ path: this.pathOf(name), text, mode });
    } catch (error) {
      throw new Error(`${this.#path}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** Writes files that belong together: none is replaced before all are on disk. */
  async write(entries: FolderEntry[]): Promise<void> {
    try {
      await this.make();
      await replaceFiles(...entries.map(({ name, text, mode = 0o600 }) => ({ path: this.pathOf(name), text, mode })));
    } catch (error) {
      throw new Error(`${this.#path}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** Removes a file; none is fine. */
  async remove(name: string): Promise<void> {
    await rm(this.pathOf(name), { force: true });
  }
}
