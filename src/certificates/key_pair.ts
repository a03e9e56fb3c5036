/** A certificate with its key: whether they belong together, and to a name. */
import type { KeyObject, X509Certificate } from 'node:crypto';
import { statSync } from 'node:fs';
import { isIP } from 'node:net';
import { readBounded } from '../bounded_file.js';
import { DerpError, reasonOf } from '../errors.js';
import { canonicalHost } from '../host_name.js';
import type { Certificate } from '../tls/tls_context.js';
import { broken, joined, type PemCertificate, type PemKey, parseChain, parseKey } from './pem.js';

/** Where the halves of a pair are: paths, or what errors call them. */
export interface PairFiles {
  cert: string;
  key: string;
}

/** A chain, the leaf first, and the leaf's key. */
export interface KeyPair extends Certificate {
  readonly leaf: X509Certificate;
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  /** Milliseconds since 1970. */
  readonly notAfter: number;
}

/** Bytes of a file; a chain has about 5,000. */
const MAX_SIZE = 256 * 1024;

/**
 * Reads a chain (the leaf first) and the leaf's key: RSA, ECDSA or Ed25519, as PKCS #8, PKCS #1 or SEC 1. Both files may hold other
 * blocks besides, which are left out.
 *
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` naming the file and what is wrong with it; of a missing file the cause is the
 *   system's error
 */
export function readKeyPair(files: PairFiles): KeyPair {
  return parsePair({ cert: readText(files.cert), key: readText(files.key) }, files);
}

/** @throws as {@link readKeyPair} */
export function readKey(path: string): PemKey {
  return parseKey(readText(path), path);
}

/**
 * Checks that a chain and a key belong together and to `name`. Dates are read, not judged.
 *
 * @param where - what errors name
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` saying what does not fit
 */
export function checkPair(certificate: Certificate, name: string, where: PairFiles): KeyPair {
  const pair = parsePair(certificate, where);
  checkName(pair, name, where);
  return pair;
}

/** @throws {@link DerpError} `ERR_DERP_CERTIFICATE` when a certificate is not valid for `name`, saying for which it is */
export function checkName({ leaf }: KeyPair, name: string, where: PairFiles): void {
  if (isValidFor(leaf, name)) return;
  const names = leaf.subjectAltName ?? 'nothing';
  throw broken(where.cert, `not valid for ${JSON.stringify(name)}, but for ${names.slice(0, 500)}`);
}

/** Whether a certificate names `hostname` (DNS name or IP address) as one of its alternative names; its common name does not count. */
export function isValidFor(leaf: X509Certificate, hostname: string): boolean {
  const host = canonicalHost(hostname);
  if (host === undefined) return false;
  return (isIP(host) === 0 ? leaf.checkHost(host, { subject: 'never' }) : leaf.checkIP(host)) !== undefined;
}

function parsePair(texts: Certificate, where: PairFiles): KeyPair {
  const chain = parseChain(texts.cert, where.cert);
  const { key, pem } = parseKey(texts.key, where.key);
  const leaf = chain[0]!.certificate;
  if (!leaf.checkPrivateKey(key)) throw mismatch(where, chain.slice(1), key);
  const [notBefore, notAfter] = [Date.parse(leaf.validFrom), Date.parse(leaf.validTo)];
  if (Number.isNaN(notBefore + notAfter)) throw broken(where.cert, 'the dates in the first certificate are unreadable');
  return { leaf, notBefore, notAfter, cert: joined(chain), key: `${pem}\n` };
}

function mismatch(where: PairFiles, others: PemCertificate[], key: KeyObject): DerpError {
  const place = others.findIndex(({ certificate }) => certificate.checkPrivateKey(key));
  const reason =
    place < 0
      ? `is not the key of the first certificate in ${where.cert}`
      : `belongs to certificate ${place + 2} in ${where.cert}; the certificate of the relay must come first there`;
  return new DerpError('ERR_DERP_CERTIFICATE', `key ${where.key}: ${reason}`);
}

function readText(path: string): string {
  try {
    if (!statSync(path).isFile()) throw broken(path, 'no regular file');
    return readBounded(path, MAX_SIZE).toString('latin1');
  } catch (error) {
    if (error instanceof DerpError) throw error;
    throw broken(path, reasonOf(error), error);
  }
}
