/** Certificates with their keys as PEM, checked before anybody is answered with them. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { DerpError } from '../errors.js';
import type { Certificate } from './certificate_sink.js';

/** A certificate that belongs to its key and to the name it was read for. */
export interface CheckedCertificate extends Certificate {
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  /** Milliseconds since 1970. */
  readonly notAfter: number;
}

const PEM_BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----/g;

/**
 * Checks that `key` and the chain in `cert` belong together and to `name`. Dates are read, not judged.
 *
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` saying what does not fit
 */
export function checkPair({ cert, key }: Certificate, name: string): CheckedCertificate {
  const leaf = readChain(cert)[0] as X509Certificate;
  if (!leaf.checkPrivateKey(readKey(key))) throw unfit('the key does not belong to the certificate');
  const valid = isIP(name) === 0 ? leaf.checkHost(name, { subject: 'never' }) : leaf.checkIP(name);
  if (valid === undefined) throw unfit(`the certificate is not for ${name} but for ${leaf.subjectAltName ?? 'nobody'}`);
  return { cert, key, notBefore: Date.parse(leaf.validFrom), notAfter: Date.parse(leaf.validTo) };
}

/**
 * Takes apart a file that holds the key and then the chain.
 *
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` when it does not
 */
export function splitKeyAndChain(text: string): Certificate {
  const blocks = [...text.matchAll(PEM_BLOCK)];
  const [first, ...chain] = blocks;
  if (!first?.[1]?.endsWith('PRIVATE KEY')) throw unfit('it does not begin with a private key in PEM');
  if (chain.length === 0) throw unfit('no certificate follows the key');
  if (text.replace(PEM_BLOCK, '').trim() !== '') throw unfit('there is text that is not PEM in it');
  return { key: `${first[0]}\n`, cert: `${chain.map(([block]) => block).join('\n')}\n` };
}

/** @throws {@link DerpError} `ERR_DERP_CERTIFICATE` when it is no private key that can be used as it is */
export function readKey(pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (error) {
    throw unfit(/\bENCRYPTED\b/.test(pem) ? 'the private key is encrypted' : 'no readable private key', error);
  }
}

/** The key as Go's tools write it: `EC PRIVATE KEY` or `RSA PRIVATE KEY`. */
export function goKeyPem(pem: string): string {
  const key = readKey(pem);
  return key.export({ format: 'pem', type: key.asymmetricKeyType === 'rsa' ? 'pkcs1' : 'sec1' }).toString();
}

function readChain(pem: string): X509Certificate[] {
  const blocks = pem.match(PEM_BLOCK) ?? [];
  if (blocks.length === 0) throw unfit('no certificate in PEM');
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    throw unfit('a certificate that cannot be read', error);
  }
}

function unfit(message: string, cause?: unknown): DerpError {
  return new DerpError('ERR_DERP_CERTIFICATE', message, { cause });
}
