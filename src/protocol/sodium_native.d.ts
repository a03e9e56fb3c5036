/** The part of sodium-native that derplane uses; the package brings no types. Lengths are checked by the package, wrong ones throw. */
declare module 'sodium-native' {
  interface Sodium {
    /** Fills `buffer` with random bytes of the kernel. */
    randombytes_buf(buffer: Uint8Array): void;
    /** Throws when the product is the all-zero point, that is for public keys of low order. */
    crypto_scalarmult(product: Uint8Array, secret: Uint8Array, point: Uint8Array): void;
    crypto_scalarmult_base(publicKey: Uint8Array, secret: Uint8Array): void;
    crypto_secretbox_easy(box: Uint8Array, message: Uint8Array, nonce: Uint8Array, key: Uint8Array): void;
    /** False when the box does not open. */
    crypto_secretbox_open_easy(message: Uint8Array, box: Uint8Array, nonce: Uint8Array, key: Uint8Array): boolean;
  }
  const sodium: Sodium;
  export default sodium;
}
