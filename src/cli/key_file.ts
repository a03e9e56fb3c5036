/** The relay's key on disk: `{"PrivateKey": "privkey:<64 hex>"}`, readable by both derplane and derper. */
import { readIfThere } from '../bounded_file.js';
import { createFile } from '../durable_file.js';
import { reasonOf } from '../errors.js';
import { goString, readGoObject } from '../protocol/go_json.js';
import { PrivateKey } from '../protocol/key.js';
import { StartError } from './exit.js';

/** Bytes of a key file; real ones have about 100. */
const MAX_SIZE = 64 * 1024;

/**
 * Reads the key in `path`. If the file is missing, creates it with a new key (file 0600, missing folders 0700). Two relays that start
 * on one path at the same time get the same key.
 *
 * @throws {@link StartError} when the file cannot be read or created, or holds no key; an existing file is never changed
 */
export async function loadKeyFile(path: string): Promise<PrivateKey> {
  const found = read(path);
  if (found !== undefined) return parse(path, found);
  const key = PrivateKey.generate();
  if (await create(path, key)) return key;
  const other = read(path);
  if (other === undefined)
    throw new StartError(`key file ${path}: appeared and disappeared while derplane was creating it`);
  return parse(path, other);
}

function read(path: string): Buffer | undefined {
  try {
    return readIfThere(path, MAX_SIZE);
  } catch (error) {
    throw new StartError(`key file ${path}: cannot be read: ${reasonOf(error)}`, { cause: error });
  }
}

function parse(path: string, json: Buffer): PrivateKey {
  let text = '';
  try {
    readGoObject(json, {
      privatekey: (value) => {
        text = goString(value) ?? text;
      },
    });
    // Go writes a missing key as an all-zero key.
    if (text === '' || /^privkey:0{64}$/.test(text)) throw new Error('no PrivateKey in it');
    return PrivateKey.parse(text);
  } catch (error) {
    throw new StartError(
      `derper: config: key file ${path}: ${(error as Error).message}; it needs {"PrivateKey":"privkey:<64 hexadecimal digits>"} and was not changed; move it away and derplane generates a new key`,
      { cause: error },
    );
  }
}

/** Creates the file completely or not at all; false if another process was faster. */
async function create(path: string, key: PrivateKey): Promise<boolean> {
  try {
    const text = `{\n\t"PrivateKey": ${JSON.stringify(key.serialize())}\n}`;
    return await createFile({ path, text, mode: 0o600 });
  } catch (error) {
    throw new StartError(`key file ${path}: cannot be created: ${reasonOf(error)}`, { cause: error });
  }
}
