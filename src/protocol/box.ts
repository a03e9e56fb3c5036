import sodium from 'sodium-native';
import { DerpError } from '../errors.js';
import { hsalsa20OfZeroNonce } from './hsalsa20.js';
import { KEY_LENGTH, type PrivateKey, type PublicKey, secretOf } from './key.js';

/** Bytes of the random nonce in front of a sealed message. */
export const NONCE_LENGTH = 24;

/** Bytes that sealing adds to a message: nonce and authenticator. */
export const BOX_OVERHEAD = NONCE_LENGTH + 16;

/**
 * NaCl's `crypto_box` between a private key and a peer's public key, with the 24-byte nonce in front of the sealed bytes.
 *
 * The X25519 product (35 us) is computed once and serves both directions, which halves the cryptography of a handshake; that is why
 * this is made of `crypto_scalarmult`, HSalsa20 and `crypto_secretbox`, as `crypto_box_beforenm` would be.
 */
export class Box {
  readonly #key: Uint8Array;

  /** @throws DerpError `ERR_DERP_BOX` for a public key of low order, which gives no secrecy */
  constructor(peer: PublicKey, own: PrivateKey) {
    const product = new Uint8Array(KEY_LENGTH);
    try {
      sodium.crypto_scalarmult(product, secretOf(own), peer.bytes);
    } catch (cause) {
      throw new DerpError('ERR_DERP_BOX', `${peer} is not a usable public key (low order)`, { cause });
    }
    this.#key = hsalsa20OfZeroNonce(product);
  }

  /** Seals `message`: 24 random bytes of nonce, then the box. */
  seal(message: Uint8Array): Buffer {
    const sealed = Buffer.allocUnsafe(BOX_OVERHEAD + message.length);
    this.sealInto(sealed, message);
    return sealed;
  }

  /** The same into `target`, which must have exactly {@link BOX_OVERHEAD} more bytes than the message. */
  sealInto(target: Buffer, message: Uint8Array): void {
    const nonce = target.subarray(0, NONCE_LENGTH);
    sodium.randombytes_buf(nonce);
    sodium.crypto_secretbox_easy(target.subarray(NONCE_LENGTH), message, nonce, this.#key);
  }

  /**
   * Opens what {@link seal} of the other side made.
   * @throws DerpError `ERR_DERP_BOX` when it is short, or was not sealed between these two keys
   */
  open(sealed: Buffer): Buffer {
    if (sealed.length < BOX_OVERHEAD) {
      throw new DerpError(
        'ERR_DERP_BOX',
        `box of ${sealed.length} bytes, nonce and authenticator need ${BOX_OVERHEAD}`,
      );
    }
    const message = Buffer.allocUnsafe(sealed.length - BOX_OVERHEAD);
    const nonce = sealed.subarray(0, NONCE_LENGTH);
    if (!sodium.crypto_secretbox_open_easy(message, sealed.subarray(NONCE_LENGTH), nonce, this.#key)) {
      throw new DerpError('ERR_DERP_BOX', 'box does not open: it was sealed with other keys, or damaged');
    }
    return message;
  }
}
