/** The file in which secrets outlive a restart, readable by derper too. */
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { readIfThere } from '../bounded_file.js';
import { replaceFiles } from '../durable_file.js';
import { reasonOf } from '../errors.js';
import type { Logger } from '../log.js';
import { type Secret, secretOf } from './setec.js';

/** Bytes of a cache; that of one secret has about 150. */
const MAX_SIZE = 1024 * 1024;

type Entries = Record<string, { secret?: unknown }>;

export class SecretCache {
  readonly #path: string;
  readonly #logger: Logger;
  #entries: Entries = {};

  /**
   * Reads what is there; a cache that is unreadable counts as empty, and the log says why.
   *
   * @throws Error when there can be no such file
   */
  constructor(path: string, logger: Logger) {
    this.#path = path;
    this.#logger = logger;
    if (statSync(path, { throwIfNoEntry: false })?.isFile() === false) {
      throw new Error(`cache path ${JSON.stringify(path)} is not a regular file`);
    }
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    try {
      const bytes = readIfThere(path, MAX_SIZE);
      if (bytes !== undefined) this.#entries = entriesOf(JSON.parse(bytes.toString('utf8')));
    } catch (error) {
      logger.warn({}, `WARNING: error loading cache: ${path}: ${reasonOf(error)} (continuing)`);
    }
  }

  get(name: string): Secret | undefined {
    return Object.hasOwn(this.#entries, name) ? secretOf(this.#entries[name]!.secret) : undefined;
  }

  /** Keeps a secret beside the others; if that fails, the log says why. */
  async set(name: string, { value, version }: Secret): Promise<void> {
    const secret = { Value: value.toString('base64'), Version: version };
    const entry = { secret, lastAccess: String(Math.floor(Date.now() / 1_000)) };
    this.#entries = { ...this.#entries, [name]: entry };
    try {
      await replaceFiles({ path: this.#path, text: JSON.stringify(this.#entries), mode: 0o600 });
    } catch (error) {
      this.#logger.warn({}, `WARNING: error updating cache: ${this.#path}: ${reasonOf(error)}`);
    }
  }
}

function entriesOf(json: unknown): Entries {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new Error('not a JSON object');
  if (Object.values(json).some((entry) => secretOf((entry as { secret?: unknown } | null)?.secret) === undefined)) {
    throw new Error('an entry has no secret');
  }
  return json as Entries;
}
