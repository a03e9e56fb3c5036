/** The secret that relays of a region share: 32 bytes, written as 64 hexadecimal digits. */
import { DerpError } from '../errors.js';

const HEX_MESH_KEY = /^[0-9a-fA-F]{64}$/;

/** Whether `text` has the form of a mesh key: 64 hexadecimal digits of either case. */
export function isMeshKey(text: string): boolean {
  return HEX_MESH_KEY.test(text);
}

/**
 * The mesh key in lower case.
 * @param text - 64 hexadecimal digits of either case
 * @throws DerpError `ERR_DERP_BAD_KEY`; its message does not contain the text
 */
export function parseMeshKey(text: string): string {
  if (typeof text !== 'string') throw new DerpError('ERR_DERP_BAD_KEY', 'invalid mesh key: it is not a string');
  if (!isMeshKey(text)) {
    throw new DerpError('ERR_DERP_BAD_KEY', `invalid mesh key: ${text.length} characters, needs 64 hexadecimal digits`);
  }
  return text.toLowerCase();
}
