/** Node keys: curve25519 public keys, which are the addresses of DERP, and the private keys that belong to them. */
import { inspect } from 'node:util';
import sodium from 'sodium-native';
import { bytesOf, shown, wrong } from '../checks.js';
import { DerpError } from '../errors.js';

/** Bytes of a public and of a private key. */
export const KEY_LENGTH = 32;

const PUBLIC_PREFIX = 'nodekey:';
const PRIVATE_PREFIX = 'privkey:';
const HEX_KEY = /^[0-9a-fA-F]{64}$/;

let addressOf: (key: PublicKey) => Uint8Array;
let isPublicKey: (value: object) => value is PublicKey;
let isPrivateKey: (value: object) => value is PrivateKey;

/** A client's or relay's address: a curve25519 public key. Immutable. */
export class PublicKey {
  readonly #bytes: Uint8Array;
  #hex: string | undefined;

  static {
    addressOf = (key) => key.#bytes;
    isPublicKey = (value): value is PublicKey => #bytes in value;
  }

  private constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /**
   * @param bytes - 32 bytes; copied
   * @throws DerpError `ERR_DERP_BAD_KEY` for another length
   */
  static fromBytes(bytes: Uint8Array): PublicKey {
    return new PublicKey(copyOfKey(bytes, 'public'));
  }

  /**
   * @param text - `nodekey:` and 64 hexadecimal digits of either case
   * @throws DerpError `ERR_DERP_BAD_KEY`
   */
  static parse(text: string): PublicKey {
    return new PublicKey(parseHex(text, PUBLIC_PREFIX, 'public'));
  }

  /**
   * @param hex - 64 hexadecimal digits of either case, as in the `Derp-Public-Key` header
   * @throws DerpError `ERR_DERP_BAD_KEY`
   */
  static fromHex(hex: string): PublicKey {
    return new PublicKey(parseHex(hex, '', 'public'));
  }

  /** A copy of the 32 bytes. */
  get bytes(): Uint8Array {
    return this.#bytes.slice();
  }

  /** 64 hexadecimal digits, lower case. */
  get hex(): string {
    this.#hex ??= Buffer.from(this.#bytes).toString('hex');
    return this.#hex;
  }

  /** Whether all bytes are zero; no client has this key. */
  get isZero(): boolean {
    return this.#bytes.every((byte) => byte === 0);
  }

  /** @throws DerpError `ERR_DERP_BAD_OPTION` when `other` is not a PublicKey */
  equals(other: PublicKey): boolean {
    checkPublicKey(other, 'other');
    return this.#bytes.every((byte, index) => byte === other.#bytes[index]);
  }

  /** `nodekey:` and 64 hexadecimal digits. */
  toString(): string {
    return PUBLIC_PREFIX + this.hex;
  }

  toJSON(): string {
    return this.toString();
  }

  /** The form of log lines: the first 5 characters of the key's base64 in brackets, `[Hx4Pk]`. */
  shortString(): string {
    return `[${Buffer.from(this.#bytes.subarray(0, 6)).toString('base64').slice(0, 5)}]`;
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

let readSecret: (key: PrivateKey) => Uint8Array;

/**
 * The secret that makes a {@link PublicKey} one's own. Immutable. Nothing shows the secret but {@link PrivateKey.serialize}: text, JSON
 * and inspection give the public half.
 */
export class PrivateKey {
  readonly #secret: Uint8Array;
  /** The address that belongs to this secret. */
  readonly publicKey: PublicKey;

  static {
    readSecret = (key) => key.#secret;
    isPrivateKey = (value): value is PrivateKey => #secret in value;
  }

  private constructor(secret: Uint8Array) {
    clamp(secret);
    this.#secret = secret;
    const publicBytes = new Uint8Array(KEY_LENGTH);
    sodium.crypto_scalarmult_base(publicBytes, secret);
    this.publicKey = PublicKey.fromBytes(publicBytes);
  }

  /** A new key from the kernel's random numbers. */
  static generate(): PrivateKey {
    const secret = new Uint8Array(KEY_LENGTH);
    sodium.randombytes_buf(secret);
    return new PrivateKey(secret);
  }

  /**
   * @param text - `privkey:` and 64 hexadecimal digits of either case
   * @throws DerpError `ERR_DERP_BAD_KEY`; its message does not contain the text
   */
  static parse(text: string): PrivateKey {
    return new PrivateKey(parseHex(text, PRIVATE_PREFIX, 'private'));
  }

  /**
   * @param bytes - 32 bytes; copied, and clamped as curve25519 demands
   * @throws DerpError `ERR_DERP_BAD_KEY` for another length
   */
  static fromBytes(bytes: Uint8Array): PrivateKey {
    return new PrivateKey(copyOfKey(bytes, 'private'));
  }

  /** The secret itself: `privkey:` and 64 hexadecimal digits, for key files. Never log it. */
  serialize(): string {
    return PRIVATE_PREFIX + Buffer.from(this.#secret).toString('hex');
  }

  toString(): string {
    return `PrivateKey of ${this.publicKey}`;
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/** Writes the 32 bytes of a key into `target`; for every packet, where `bytes` would copy twice. */
export function writeKey(key: PublicKey, target: Uint8Array, offset: number): void {
  target.set(addressOf(key), offset);
}

/** The secret's own 32 bytes, for the box and for nothing else. Not to be written. */
export function secretOf(key: PrivateKey): Uint8Array {
  return readSecret(key);
}

/** Makes any 32 bytes a curve25519 scalar (RFC 7748, section 5). */
function clamp(secret: Uint8Array): void {
  secret[0]! &= 0b1111_1000;
  secret[31] = (secret[31]! & 0b0111_1111) | 0b0100_0000;
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` */
export function checkPublicKey(value: unknown, name: string): asserts value is PublicKey {
  if (isObject(value) && isPublicKey(value)) return;
  const advice =
    isObject(value) && isPrivateKey(value)
      ? 'give its publicKey'
      : typeof value === 'string'
        ? 'read it by PublicKey.parse(text) or PublicKey.fromHex(text)'
        : value instanceof Uint8Array
          ? 'make it by PublicKey.fromBytes(bytes)'
          : foreignAdvice(value, 'PublicKey');
  wrong(name, value, 'a PublicKey', advice);
}

/** @throws DerpError `ERR_DERP_BAD_OPTION`; its message shows nothing of the value */
export function checkPrivateKey(value: unknown, name: string): asserts value is PrivateKey {
  if (isObject(value) && isPrivateKey(value)) return;
  const advice =
    typeof value === 'string'
      ? 'read it by PrivateKey.parse(text)'
      : value instanceof Uint8Array
        ? 'make it by PrivateKey.fromBytes(bytes)'
        : foreignAdvice(value, 'PrivateKey');
  wrong(name, value, 'a PrivateKey', advice);
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function foreignAdvice(value: unknown, name: string): string {
  return shown(value) === `a ${name}` ? 'another copy of derplane made this one; give its text to this copy' : '';
}

function copyOfKey(bytes: Uint8Array, kind: string): Uint8Array {
  const given = bytesOf(bytes, `bytes of a ${kind} key`);
  if (given.length !== KEY_LENGTH) throw badKey(`${kind} key of ${given.length} bytes, needs ${KEY_LENGTH}`);
  const copy = new Uint8Array(KEY_LENGTH);
  copy.set(given);
  return copy;
}

function parseHex(text: string, prefix: string, kind: string): Uint8Array {
  if (typeof text !== 'string') throw badKey(`${kind} key: must be a string, not ${shown(text)}`);
  if (!text.startsWith(prefix)) throw badKey(`${kind} key does not begin with "${prefix}"`);
  const digits = text.slice(prefix.length);
  if (digits.length !== 2 * KEY_LENGTH) {
    throw badKey(
      `${kind} key of ${digits.length} characters, needs ${2 * KEY_LENGTH} hexadecimal digits after "${prefix}"`,
    );
  }
  if (!HEX_KEY.test(digits)) throw badKey(`${kind} key has characters that are not hexadecimal digits`);
  return new Uint8Array(Buffer.from(digits, 'hex'));
}

function badKey(message: string): DerpError {
  return new DerpError('ERR_DERP_BAD_KEY', message);
}
