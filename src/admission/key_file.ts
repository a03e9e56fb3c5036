/** Admits the keys of a file, which is read again when it changes. */
import { readRegular } from '../bounded_file.js';
import { badOption } from '../checks.js';
import { FileWatch, POLL_INTERVAL } from '../file_state.js';
import type { Logger } from '../log.js';
import { PublicKey } from '../protocol/key.js';
import type { Admission, AdmissionRequest, AdmissionSource } from './decision.js';
import { type KeyList, parseKeyList } from './key_list.js';

/** Bytes of the largest file: about 100,000 keys. Reading it takes the main thread about 0.1 s. */
const MAX_SIZE = 8 << 20;

export interface KeyFileOptions {
  path: string;
  logger: Logger;
  /** Called with the keys that left the list. */
  onLeft: (keys: readonly PublicKey[]) => void;
  /** Milliseconds. Default: 1,000. */
  pollInterval?: number;
}

export class KeyFile implements AdmissionSource {
  readonly name = 'key_file';
  readonly #options: KeyFileOptions;
  readonly #watch: FileWatch;
  #keys: KeyList;

  /** @throws DerpError `ERR_DERP_BAD_OPTION` when the file is unreadable or malformed */
  constructor(options: KeyFileOptions) {
    this.#options = options;
    this.#watch = new FileWatch(options.path, () => this.reload(), options.pollInterval ?? POLL_INTERVAL);
    try {
      this.#keys = this.#read();
    } catch (error) {
      this.#watch.close();
      throw badOption(`allowed keys ${options.path}: ${(error as Error).message}`, error);
    }
    options.logger.info({}, `allowed keys: ${this.size} in ${options.path}`);
  }

  /** Keys in the list. */
  get size(): number {
    return this.#keys.size;
  }

  admit({ key }: AdmissionRequest): Admission {
    return this.#keys.get(key.hex) ?? { allow: false, text: `${key} is not among the allowed keys` };
  }

  /** Whether the list has a key now. */
  has(key: PublicKey): boolean {
    return this.#keys.has(key.hex);
  }

  /** Reads the file now. While it is unreadable or malformed the list in force stays. */
  reload(): void {
    const { path, logger, onLeft } = this.#options;
    const before = this.#keys;
    try {
      this.#keys = this.#read();
    } catch (error) {
      logger.error({}, `allowed keys ${path}: not reloaded, the list in force stays: ${(error as Error).message}`);
      return;
    }
    const left = [...before.keys()].filter((hex) => !this.#keys.has(hex)).map((hex) => PublicKey.fromHex(hex));
    const added = this.size - (before.size - left.length);
    logger.info({}, `allowed keys: ${this.size} in ${path}, ${added} added, ${left.length} removed`);
    if (left.length > 0) onLeft(left);
  }

  close(): void {
    this.#watch.close();
  }

  #read(): KeyList {
    this.#watch.settle();
    return parseKeyList(readRegular(this.#options.path, MAX_SIZE).toString('utf8'));
  }
}
