/** Certificates and keys in PEM. Errors are a DerpError `ERR_DERP_CERTIFICATE` that says where the text is from, and what is wrong with it. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { DerpError } from '../errors.js';
import type { CertificateText } from '../tls/tls_context.js';
import { diagnose } from './pem_diagnosis.js';

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[^-]*(?:-(?!----)[^-]*)*-----END \1-----/g;
/** The curves that every TLS client knows. */
const CURVES = new Set(['prime256v1', 'secp384r1', 'secp521r1']);

interface Block {
  label: string;
  pem: string;
}

/** A part of a text, as it is and as what it means. */
export interface PemCertificate {
  certificate: X509Certificate;
  pem: string;
}

export interface PemKey {
  key: KeyObject;
  pem: string;
}

/** All certificates of a text, in their order; other blocks are left out. */
export function parseChain(text: string, where: string): PemCertificate[] {
  const blocks = blocksOf(text).filter(({ label }) => label === 'CERTIFICATE');
  if (blocks.length === 0) throw broken(where, diagnose(text, 'certificate', where));
  return blocks.map(({ pem }, index) => {
    try {
      return { certificate: new X509Certificate(pem), pem };
    } catch (error) {
      throw broken(where, `certificate ${index + 1} of ${blocks.length} in it is unreadable`, error);
    }
  });
}

/** The first private key of a text: RSA, ECDSA or Ed25519, as PKCS #8, PKCS #1 or SEC 1; other blocks are left out. */
export function parseKey(text: string, where: string): PemKey {
  const block = blocksOf(text).find(isKey);
  if (block === undefined) throw broken(where, diagnose(text, 'private key', where));
  const { label, pem } = block;
  if (label === 'ENCRYPTED PRIVATE KEY' || /^Proc-Type: 4,ENCRYPTED/m.test(pem)) {
    throw broken(where, 'the key is encrypted; take its passphrase away (openssl pkey -in FILE -out FILE)');
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (error) {
    throw broken(where, 'the private key in it is unreadable; it takes PKCS #8, PKCS #1 or SEC 1', error);
  }
  const type = key.asymmetricKeyType;
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (type === 'rsa' || type === 'ed25519' || (type === 'ec' && CURVES.has(curve ?? ''))) return { key, pem };
  throw broken(where, `a key of the kind ${curve ?? type}; it takes RSA, ECDSA (P-256, P-384, P-521) and Ed25519`);
}

/** Takes apart a text that holds a key and then its chain, as derper keeps them, and nothing else. */
export function splitKeyAndChain(text: string, where: string): CertificateText {
  const [first, ...chain] = blocksOf(text);
  if (first === undefined || !isKey(first)) throw broken(where, 'it does not begin with a private key in PEM');
  if (chain.length === 0) throw broken(where, 'no certificate follows the key');
  if (text.replace(BLOCK, '').trim() !== '') throw broken(where, 'there is text that is not PEM in it');
  return { key: `${first.pem}\n`, cert: joined(chain) };
}

/** derper's way to keep a key and its chain in one text. */
export function keyThenChain({ cert, key }: CertificateText): string {
  return goKeyPem(key) + cert;
}

/** The key as Go's tools write it: `EC PRIVATE KEY` or `RSA PRIVATE KEY`. */
export function goKeyPem(pem: string): string {
  const key = createPrivateKey(pem);
  return key.export({ format: 'pem', type: key.asymmetricKeyType === 'rsa' ? 'pkcs1' : 'sec1' }).toString();
}

export function joined(blocks: readonly { pem: string }[]): string {
  return blocks.map(({ pem }) => `${pem}\n`).join('');
}

export function broken(where: string, reason: string, cause?: unknown): DerpError {
  return new DerpError('ERR_DERP_CERTIFICATE', `${where}: ${reason}`, { cause });
}

function blocksOf(text: string): Block[] {
  return [...text.matchAll(BLOCK)].map(([pem, label]) => ({ pem, label: label! }));
}

function isKey({ label }: Block): boolean {
  return /^(?!OPENSSH )(?:.* )?PRIVATE KEY$/.test(label);
}

/** Whether a text holds certificates and no key, or a key and no certificate. */
export function contentOf(text: string): 'certificates' | 'key' | 'other' {
  const blocks = blocksOf(text);
  const [hasKey, hasCertificate] = [blocks.some(isKey), blocks.some(({ label }) => label === 'CERTIFICATE')];
  if (hasKey === hasCertificate) return 'other';
  return hasKey ? 'key' : 'certificates';
}
