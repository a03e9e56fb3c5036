/** The private key of an account at an ACME server. */
import { createPrivateKey } from 'node:crypto';
import type { Logger } from '../log.js';
import type { CertificateFolder } from './certificate_folder.js';
import { parseKey } from './pem.js';

/**
 * Reads the key from the first of the files `names` that exists.
 *
 * @throws naming the file, when it is unreadable or not a key
 */
export async function readAccountKey(folder: CertificateFolder, names: string[]): Promise<string | undefined> {
  for (const name of names) {
    const pem = await folder.read(name);
    if (pem === undefined) continue;
    try {
      parseKey(pem, folder.pathOf(name));
    } catch (error) {
      throw new Error(`${(error as Error).message}; move it away to have a new account made`, { cause: error });
    }
    return pem;
  }
  return undefined;
}

/** What gives the key in the first of the files `names` that exists, or makes one in the first; the same to all who ask. */
export function accountKey(
  folder: CertificateFolder,
  names: [string, ...string[]],
  logger: Logger,
): () => Promise<string> {
  let key: Promise<string> | undefined;
  return () => {
    key ??= readOrMake(folder, names, logger).catch((error: unknown) => {
      key = undefined;
      throw error;
    });
    return key;
  };
}

async function readOrMake(folder: CertificateFolder, names: [string, ...string[]], logger: Logger): Promise<string> {
  const kept = await readAccountKey(folder, names);
  if (kept !== undefined) return kept;
  const { crypto } = await import('acme-client');
  const made = createPrivateKey((await crypto.createPrivateEcdsaKey()).toString());
  const pem = made.export({ format: 'pem', type: 'sec1' }).toString();
  try {
    if (await folder.create({ name: names[0], text: pem })) return pem;
  } catch (error) {
    logger.error({}, `derper: acme: the account's key is not kept on disk: ${(error as Error).message}`);
    return pem;
  }
  // Another relay that shares the folder was faster. There must be one account: a binding registers no second one.
  return readOrMake(folder, names, logger);
}
