/** A certificate and its key as files hold them. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import { reasonOf } from '../durable_file.js';
import { DerpError } from '../errors.js';
import type { Certificate } from './certificate_sink.js';

/** Where the halves of a pair are. */
export interface PairFiles {
  cert: string;
  key: string;
}

export interface KeyPair extends Certificate {
  leaf: X509Certificate;
}

/** Bytes of a file; a chain has about 5,000. */
const MAX_SIZE = 256 * 1024;
/** The curves that every TLS client knows. */
const CURVES = new Set(['prime256v1', 'secp384r1', 'secp521r1']);

interface Block {
  label: string;
  pem: string;
}

/**
 * Reads a chain (the leaf first) and the leaf's key: RSA, ECDSA or Ed25519, as PKCS #8, PKCS #1 or SEC 1. Both files may hold other
 * blocks besides, which are left out.
 *
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` naming the file and what is wrong with it; of a missing file the cause is the
 *   system's error
 */
export function readKeyPair(files: PairFiles): KeyPair {
  const chain = readChain(files.cert);
  const { key, pem } = readKey(files.key);
  const leaf = chain[0]!.certificate;
  if (!leaf.checkPrivateKey(key)) throw mismatch(files, chain.slice(1), key);
  return { leaf, cert: chain.map((entry) => `${entry.pem}\n`).join(''), key: `${pem}\n` };
}

/** @throws as {@link readKeyPair} */
export function readKey(path: string): { key: KeyObject; pem: string } {
  const block = readBlocks(path).find(({ label }) => /(?:^| )PRIVATE KEY$/.test(label));
  if (block === undefined) {
    throw broken(path, 'no private key in it; it takes PEM that begins with "-----BEGIN PRIVATE KEY-----"');
  }
  return { key: parseKey(path, block), pem: block.pem };
}

/** Whether a certificate names `hostname` (DNS name or IP address) as one of its alternative names; its common name does not count. */
export function isValidFor(leaf: X509Certificate, hostname: string): boolean {
  const ip = addressOf(hostname);
  if (ip !== undefined) return leaf.checkIP(ip) !== undefined;
  return leaf.checkHost(hostname.replace(/\.$/, ''), { subject: 'never' }) !== undefined;
}

/** The IP address that a host name is, IPv4 never as v4-in-v6; undefined for a DNS name. */
export function addressOf(hostname: string): string | undefined {
  return isIP(hostname) === 0 || hostname.includes('%') ? undefined : hostname.replace(/^::ffff:(?=[\d.]+$)/i, '');
}

function readChain(path: string): { certificate: X509Certificate; pem: string }[] {
  const blocks = readBlocks(path).filter(({ label }) => label === 'CERTIFICATE');
  if (blocks.length === 0) {
    throw broken(path, 'no certificate in it; it takes PEM that begins with "-----BEGIN CERTIFICATE-----"');
  }
  return blocks.map(({ pem }, index) => {
    try {
      return { certificate: new X509Certificate(pem), pem };
    } catch (error) {
      throw broken(path, `certificate ${index + 1} of ${blocks.length} in it is unreadable`, error);
    }
  });
}

function parseKey(path: string, { label, pem }: Block): KeyObject {
  if (label === 'ENCRYPTED PRIVATE KEY' || /^Proc-Type: 4,ENCRYPTED/m.test(pem)) {
    throw broken(path, 'the key is encrypted; take its passphrase away (openssl pkey -in FILE -out FILE)');
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (error) {
    throw broken(path, 'the private key in it is unreadable; it takes PKCS #8, PKCS #1 or SEC 1', error);
  }
  const type = key.asymmetricKeyType;
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (type === 'rsa' || type === 'ed25519' || (type === 'ec' && CURVES.has(curve ?? ''))) return key;
  throw broken(path, `a key of the kind ${curve ?? type}; it takes RSA, ECDSA (P-256, P-384, P-521) and Ed25519`);
}

function mismatch(files: PairFiles, others: { certificate: X509Certificate }[], key: KeyObject): DerpError {
  const place = others.findIndex(({ certificate }) => certificate.checkPrivateKey(key));
  const reason =
    place < 0
      ? `is not the key of the first certificate in ${files.cert}`
      : `belongs to certificate ${place + 2} in ${files.cert}; the certificate of the relay must come first there`;
  return new DerpError('ERR_DERP_CERTIFICATE', `key ${files.key}: ${reason}`);
}

function readBlocks(path: string): Block[] {
  const blocks = readText(path).matchAll(/-----BEGIN ([A-Z0-9 ]+)-----[^-]*(?:-(?!----)[^-]*)*-----END \1-----/g);
  return [...blocks].map(([pem, label]) => ({ pem, label: label! }));
}

function readText(path: string): string {
  try {
    const stats = statSync(path);
    if (!stats.isFile()) throw broken(path, 'no regular file');
    if (stats.size > MAX_SIZE) throw broken(path, `${stats.size} bytes are too many, it takes ${MAX_SIZE} at most`);
    return readFileSync(path, 'latin1');
  } catch (error) {
    if (error instanceof DerpError) throw error;
    throw broken(path, reasonOf(error), error);
  }
}

function broken(path: string, reason: string, cause?: unknown): DerpError {
  return new DerpError('ERR_DERP_CERTIFICATE', `${path}: ${reason}`, { cause });
}
