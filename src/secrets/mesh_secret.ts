/** The mesh key from a secret server. */
import { DerpError, reasonOf } from '../errors.js';
import type { Logger } from '../log.js';
import { SecretCache } from './cache.js';
import { fetchSecret } from './setec.js';

export interface SecretSource {
  /** Of the server, http(s). */
  secretsUrl: string;
  /** Of the secret, its prefix included. */
  secret: string;
  cacheFile: string;
}

/**
 * Reads the secret from the cache, however old it is there, else from the server, which is asked until it answers.
 *
 * @returns its text, and where it comes from
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` when there can be no such cache
 */
export async function readSecret(
  { secretsUrl, secret: name, cacheFile }: SecretSource,
  logger: Logger,
  signal: AbortSignal = new AbortController().signal,
): Promise<{ text: string; from: string }> {
  const cache = openCache(cacheFile, logger);
  logger.info({}, `Setting up setec store from ${JSON.stringify(shown(secretsUrl))}`);
  const cached = cache.get(name);
  const secret = cached ?? (await fetchSecret(secretsUrl, name, logger, signal));
  if (cached === undefined) await cache.set(name, secret);
  const where = cached === undefined ? `-secrets-url ${shown(secretsUrl)}` : `-secrets-cache-dir ${cacheFile}`;
  logger.info({}, `Got mesh key from setec store${cached === undefined ? '' : `, by its cache ${cacheFile}`}`);
  return { text: secret.value.toString('latin1'), from: `${where}: ${JSON.stringify(name)}` };
}

function openCache(path: string, logger: Logger): SecretCache {
  try {
    return new SecretCache(path, logger);
  } catch (error) {
    throw new DerpError('ERR_DERP_BAD_OPTION', `NewFileCache: -secrets-cache-dir ${path}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

/** A URL without what may be secret in it. */
function shown(url: string): string {
  return url.replace(/\/\/[^@/]*@/g, '//…@');
}
