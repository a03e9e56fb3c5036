/** The secret that relays of a region share: 32 bytes, written as 64 hexadecimal digits. */
import { timingSafeEqual } from 'node:crypto';
import { DerpError } from '../errors.js';

const HEX_MESH_KEY = /^[0-9a-fA-F]{64}$/;
const NO_KEY = Buffer.alloc(32);

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
  if (!isMeshKey(text)) {
    throw new DerpError('ERR_DERP_BAD_KEY', `invalid mesh key: ${text.length} characters, needs 64 hexadecimal digits`);
  }
  return text.toLowerCase();
}

/**
 * Whether a client that offers `offered` is a mesh peer of a relay whose key is `own`; both well formed. Takes the same time for every
 * offer. All zeros never make a mesh peer.
 */
export function provesMeshKey(offered: string | undefined, own: string | undefined): boolean {
  if (offered === undefined || own === undefined) return false;
  const bytes = Buffer.from(own, 'hex');
  return timingSafeEqual(Buffer.from(offered, 'hex'), bytes) && !timingSafeEqual(bytes, NO_KEY);
}
