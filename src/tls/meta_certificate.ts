/**
 * The meta certificate: the last of a relay's TLS chain, which tells clients the relay's key and protocol version before the relay has said
 * anything, so that they may begin with their ClientInfo at once. It is not verified: the following handshake proves the key.
 */
import { generateKeyPair, type KeyObject, sign, X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import { PROTOCOL_VERSION } from '../protocol/frame.js';
import { PublicKey } from '../protocol/key.js';

const NAME_PREFIX = 'derpkey';
const DAY = 86_400_000;
/** Milliseconds that it is valid before and after it was made: clocks of clients are not always right. */
const VALIDITY = 30 * DAY;
/** Milliseconds after which a relay makes a new one, long before the old one expires. */
export const META_CERTIFICATE_RENEWAL = 10 * DAY;

export interface MetaCertificate {
  serverKey: PublicKey;
  /** Of the protocol, 1 to 255. */
  version: number;
}

/**
 * Makes a meta certificate with a fresh key, which is discarded: Ed25519, self-signed, valid for 30 days to either side of now.
 *
 * @returns DER
 */
export async function makeMetaCertificate(publicKey: PublicKey): Promise<Uint8Array> {
  const keys = await promisify(generateKeyPair)('ed25519');
  const toBeSigned = certificateBody(NAME_PREFIX + publicKey.hex, keys.publicKey, Date.now());
  const signature = sign(null, toBeSigned, keys.privateKey);
  return sequence(toBeSigned, ED25519, tlv(Tag.BitString, Uint8Array.of(0), signature));
}

/** What a meta certificate says; undefined for every other certificate, unreadable ones included. */
export function readMetaCertificate(der: Uint8Array): MetaCertificate | undefined {
  const certificate = parseCertificate(der);
  const digits = certificate && metaName(certificate)?.match(/^[0-9a-fA-F]{64}$/)?.[0];
  if (digits === undefined) return undefined;
  const serverKey = PublicKey.fromHex(digits);
  const version = /^[0-9A-F]{1,2}$/.test(certificate!.serialNumber)
    ? Number.parseInt(certificate!.serialNumber, 16)
    : 0;
  return version === 0 || serverKey.isZero ? undefined : { serverKey, version };
}

/** Whether its name is one of a meta certificate; what else it says is not looked at. */
export function isMetaCertificate(certificate: X509Certificate): boolean {
  return metaName(certificate) !== undefined;
}

function parseCertificate(der: Uint8Array): X509Certificate | undefined {
  try {
    return new X509Certificate(der);
  } catch {
    return undefined; // not a certificate at all
  }
}

/** What follows the prefix in the last common name. */
function metaName(certificate: X509Certificate): string | undefined {
  const names = certificate.subject?.split('\n').filter((line) => line.startsWith('CN=')) ?? [];
  const name = names.at(-1)?.slice('CN='.length);
  return name?.startsWith(NAME_PREFIX) ? name.slice(NAME_PREFIX.length) : undefined;
}

// The DER of exactly this certificate. An X.509 library costs a starting relay 100 ms and more, in which clients wait, and signs with
// Ed25519 by WebCrypto only, which is experimental in Node 20.

enum Tag {
  Boolean = 0x01,
  Integer = 0x02,
  BitString = 0x03,
  OctetString = 0x04,
  ObjectId = 0x06,
  Utf8String = 0x0c,
  UtcTime = 0x17,
  GeneralizedTime = 0x18,
  Sequence = 0x30,
  Set = 0x31,
  Version = 0xa0,
  Extensions = 0xa3,
}

/** AlgorithmIdentifier of Ed25519, 1.3.101.112. */
const ED25519 = sequence(tlv(Tag.ObjectId, Uint8Array.of(0x2b, 0x65, 0x70)));
/** 2.5.4.3. */
const COMMON_NAME = tlv(Tag.ObjectId, Uint8Array.of(0x55, 0x04, 0x03));
/** 2.5.29.19. */
const BASIC_CONSTRAINTS = tlv(Tag.ObjectId, Uint8Array.of(0x55, 0x1d, 0x13));
const TRUE = tlv(Tag.Boolean, Uint8Array.of(0xff));
/** X.509 version 3. */
const V3 = tlv(Tag.Version, tlv(Tag.Integer, Uint8Array.of(2)));
const SERIAL = tlv(Tag.Integer, Uint8Array.of(PROTOCOL_VERSION));
/** Critical, and an empty sequence: no CA. macOS wants it where subject and issuer are equal. */
const EXTENSIONS = tlv(Tag.Extensions, sequence(sequence(BASIC_CONSTRAINTS, TRUE, tlv(Tag.OctetString, sequence()))));

/** TBSCertificate (RFC 5280, section 4.1). */
function certificateBody(commonName: string, publicKey: KeyObject, now: number): Uint8Array {
  const name = sequence(tlv(Tag.Set, sequence(COMMON_NAME, tlv(Tag.Utf8String, Buffer.from(commonName)))));
  const validity = sequence(time(now - VALIDITY), time(now + VALIDITY));
  const keyInfo = publicKey.export({ type: 'spki', format: 'der' });
  return sequence(V3, SERIAL, ED25519, name, validity, name, keyInfo, EXTENSIONS);
}

/** Two digits for the year up to 2049, four from then on. */
function time(milliseconds: number): Uint8Array {
  const digits = `${new Date(milliseconds).toISOString().slice(0, 19).replace(/[-T:]/g, '')}Z`;
  return digits < '2050'
    ? tlv(Tag.UtcTime, Buffer.from(digits.slice(2)))
    : tlv(Tag.GeneralizedTime, Buffer.from(digits));
}

function sequence(...parts: Uint8Array[]): Uint8Array {
  return tlv(Tag.Sequence, ...parts);
}

/** Tag, length, value. */
function tlv(tag: Tag, ...parts: Uint8Array[]): Uint8Array {
  const value = Buffer.concat(parts);
  const length =
    value.length < 0x80
      ? [value.length]
      : value.length < 0x100
        ? [0x81, value.length]
        : [0x82, value.length >> 8, value.length & 0xff];
  return Buffer.concat([Uint8Array.of(tag, ...length), value]);
}
