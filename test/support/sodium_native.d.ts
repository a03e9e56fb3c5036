/** The part of sodium-native that tests use; the package brings no types. */
declare module 'sodium-native' {
  interface Sodium {
    readonly crypto_box_MACBYTES: number;
    randombytes_buf(buffer: Uint8Array): void;
    crypto_box_easy(box: Uint8Array, message: Uint8Array, nonce: Uint8Array, key: Uint8Array, secret: Uint8Array): void;
    /** False when the box does not open. */
    crypto_box_open_easy(
      message: Uint8Array,
      box: Uint8Array,
      nonce: Uint8Array,
      key: Uint8Array,
      secret: Uint8Array,
    ): boolean;
  }
  const sodium: Sodium;
  export default sodium;
}
