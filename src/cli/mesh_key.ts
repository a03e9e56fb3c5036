/** Reads the secret that the relays of a region share. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readBounded } from '../bounded_file.js';
import { reasonOf } from '../errors.js';
import type { Logger } from '../log.js';
import { isMeshKey } from '../protocol/mesh_key.js';
import type { SecretSource } from '../secrets/mesh_secret.js';
import { StartError } from './exit.js';

/** Bytes of a mesh key's file; real ones have 65. */
const MAX_SIZE = 64 * 1024;

/** Where the mesh key comes from, in the words of an error: a flag with its file, or a variable. */
export type MeshKeySource = { file: string } | { variable: string; text: string };

/** The variable that is read with `-dev`, and only then. */
export const MESH_KEY_VARIABLE = 'TAILSCALE_DERPER_MESH_KEY';

/** The default of `-mesh-psk-file`: the first file that exists, as in derper. */
export function defaultMeshKeyFile(home: string | undefined): string | undefined {
  const candidates = ['/home/derp/keys/derp-mesh.key'];
  if (home !== undefined && home !== '') candidates.push(join(home, 'keys/derp-mesh.key'));
  return candidates.find((path) => existsSync(path));
}

/** A source that is read without waiting: of a secret server what it answered. */
export async function fetchMeshKey(source: MeshKeySource | SecretSource, logger: Logger): Promise<MeshKeySource> {
  if (!('secretsUrl' in source)) return source;
  const { readSecret } = await import('../secrets/mesh_secret.js');
  const { text, from } = await readSecret(source, logger);
  return { variable: from, text };
}

/**
 * The mesh key in lower case; undefined for an empty file, which stands for no mesh key, as in derper.
 *
 * @throws {@link StartError} when it cannot be read or is invalid; the message does not contain the key
 */
export function loadMeshKey(source: MeshKeySource): string | undefined {
  const [name, text] =
    'file' in source ? [`-mesh-psk-file ${source.file}`, read(source.file)] : [source.variable, source.text];
  if (text === '') return undefined;
  const key = text.trim();
  if (!isMeshKey(key))
    throw new StartError(`invalid mesh key: ${name}: ${key.length} characters, needs 64 hexadecimal`);
  if (/^0+$/.test(key)) throw new StartError(`invalid mesh key: ${name}: all zeros, which never matches`);
  return key.toLowerCase();
}

function read(path: string): string {
  try {
    return readBounded(path, MAX_SIZE).toString('latin1');
  } catch (error) {
    throw new StartError(`StaticFile failed to get key: -mesh-psk-file ${path}: cannot be read: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}
