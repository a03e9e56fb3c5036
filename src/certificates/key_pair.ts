/** A certificate with its key: whether they belong together, and to a name. */
import type { KeyObject, X509Certificate } from 'node:crypto';
import { statSync } from 'node:fs';
import { isIP } from 'node:net';
import { readBounded } from '../bounded_file.js';
import { DerpError, reasonOf } from '../errors.js';
import { canonicalHost } from '../host_name.js';
import type { CertificateText } from '../tls/tls_context.js';
import { isSelfSigned } from './chain.js';
import { broken, contentOf, joined, type PemCertificate, type PemKey, parseChain, parseKey } from './pem.js';

/** Where the halves of a pair are: paths, or what errors call them. */
export interface PairFiles {
  cert: string;
  key: string;
}

/** A chain, the leaf first, and the leaf's key. */
export interface KeyPair extends CertificateText {
  readonly leaf: X509Certificate;
  /** All that is sent, the leaf first. */
  readonly chain: readonly X509Certificate[];
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
export function checkPair(certificate: CertificateText, name: string, where: PairFiles): KeyPair {
  const pair = parsePair(certificate, where);
  checkName(pair, name, where);
  return pair;
}

/** @throws {@link DerpError} `ERR_DERP_CERTIFICATE` when a certificate is not valid for `name`, saying for which it is */
export function checkName({ leaf }: KeyPair, name: string, where: PairFiles): void {
  if (isValidFor(leaf, name)) return;
  const wanted = JSON.stringify(name);
  const others = leaf.subjectAltName?.slice(0, 500);
  if (isCommonNameOf(leaf, name)) {
    const beside = others === undefined ? '' : `, beside ${others}`;
    throw broken(
      where.cert,
      `cert invalid for hostname ${wanted}: only its common name (CN) is that, which clients no longer read; it must be a subject alternative name (SAN)${beside}`,
    );
  }
  throw broken(
    where.cert,
    `cert invalid for hostname ${wanted}, valid for ${others ?? 'nothing: it has no subject alternative name (SAN)'}`,
  );
}

function isCommonNameOf(leaf: X509Certificate, name: string): boolean {
  const names = leaf.subject?.split('\n').filter((line) => line.startsWith('CN=')) ?? [];
  const host = canonicalHost(name);
  return host !== undefined && names.some((line) => canonicalHost(line.slice('CN='.length)) === host);
}

/** Whether a certificate names `hostname` (DNS name or IP address) as one of its alternative names; its common name does not count. */
export function isValidFor(leaf: X509Certificate, hostname: string): boolean {
  const host = canonicalHost(hostname);
  if (host === undefined) return false;
  return (isIP(host) === 0 ? leaf.checkHost(host, { subject: 'never' }) : leaf.checkIP(host)) !== undefined;
}

function parsePair(texts: CertificateText, where: PairFiles): KeyPair {
  if (contentOf(texts.cert) === 'key' && contentOf(texts.key) === 'certificates') {
    throw broken(where.cert, `holds the private key, and ${where.key} the certificate: the two files are swapped`);
  }
  const chain = parseChain(texts.cert, where.cert);
  const { key, pem } = parseKey(texts.key, where.key);
  const leaf = chain[0]!.certificate;
  if (!leaf.checkPrivateKey(key)) throw mismatch(where, chain.slice(1), key);
  const [notBefore, notAfter] = [Date.parse(leaf.validFrom), Date.parse(leaf.validTo)];
  if (Number.isNaN(notBefore + notAfter)) throw broken(where.cert, 'the dates in the first certificate are unreadable');
  // A self-signed one is its own chain; with more beside it, clients that know it by its pin refuse it.
  const sent = isSelfSigned(leaf) ? chain.slice(0, 1) : chain;
  const certificates = sent.map(({ certificate }) => certificate);
  return { leaf, chain: certificates, notBefore, notAfter, cert: joined(sent), key: `${pem}\n` };
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
    const { code } = error as NodeJS.ErrnoException;
    const who = code === 'EACCES' ? `: the user that runs derplane (uid ${process.getuid?.()}) may not read it` : '';
    throw broken(path, reasonOf(error) + who, error);
  }
}
