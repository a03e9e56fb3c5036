/** HSalsa20 for a nonce of zeros: what NaCl's `crypto_box_beforenm` does to the product of two keys. libsodium has it, sodium-native does not. */

/** The constant "expand 32-byte k" as little-endian words. */
const SIGMA = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574] as const;
const DOUBLE_ROUNDS = 10;

/** Rows of a round as places of the 4 x 4 matrix: first the columns, then the rows (Salsa20 specification, sections 4 and 5). */
const QUARTERS = [
  [0, 4, 8, 12],
  [5, 9, 13, 1],
  [10, 14, 2, 6],
  [15, 3, 7, 11],
  [0, 1, 2, 3],
  [5, 6, 7, 4],
  [10, 11, 8, 9],
  [15, 12, 13, 14],
] as const;

/** Words of the matrix that are the result, in order. */
const RESULT = [0, 5, 10, 15, 6, 7, 8, 9] as const;

/**
 * Derives the key of a box from the X25519 product of its two keys.
 * @param product - 32 bytes
 * @returns 32 bytes
 */
export function hsalsa20OfZeroNonce(product: Uint8Array): Uint8Array {
  const input = new DataView(product.buffer, product.byteOffset, product.byteLength);
  const words = new Uint32Array(16);
  for (let i = 0; i < 4; i++) {
    words[5 * i] = SIGMA[i]!;
    words[1 + i] = input.getUint32(4 * i, true);
    words[11 + i] = input.getUint32(16 + 4 * i, true);
  }
  for (let round = 0; round < DOUBLE_ROUNDS; round++) {
    for (const [a, b, c, d] of QUARTERS) {
      words[b] = words[b]! ^ rotate(words[a]! + words[d]!, 7);
      words[c] = words[c]! ^ rotate(words[b]! + words[a]!, 9);
      words[d] = words[d]! ^ rotate(words[c]! + words[b]!, 13);
      words[a] = words[a]! ^ rotate(words[d]! + words[c]!, 18);
    }
  }
  const result = new Uint8Array(32);
  const output = new DataView(result.buffer);
  for (let i = 0; i < RESULT.length; i++) output.setUint32(4 * i, words[RESULT[i]!]!, true);
  return result;
}

function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
