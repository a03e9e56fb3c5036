/** Pins: a relay's certificate named by its hash, as `CertName` of a DERP map does for relays with a self-signed one. */
import { createHash, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { DerpError } from '../errors.js';
import { canonicalHost } from '../host_name.js';
import { isMetaCertificate } from './meta_certificate.js';

const PREFIX = 'sha256-raw:';

/** The SHA-256 of a certificate's DER: 64 hexadecimal digits, lower case. */
export type CertificatePin = string & { readonly brand: unique symbol };

/** Whether a `CertName` is a pin, well-formed or not; else it is a host name. */
export function isPin(certName: string): boolean {
  return certName.startsWith(PREFIX);
}

/**
 * @param certName - `sha256-raw:` and 64 hexadecimal digits of either case
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` for anything else
 */
export function parsePin(certName: string): CertificatePin {
  const digits = isPin(certName) ? certName.slice(PREFIX.length) : '';
  if (!/^[0-9a-fA-F]{64}$/.test(digits)) {
    const shown = JSON.stringify(certName.slice(0, 128));
    throw new DerpError('ERR_DERP_BAD_OPTION', `${shown} is not a pin; it takes ${PREFIX} and 64 hexadecimal digits`);
  }
  return digits.toLowerCase() as CertificatePin;
}

/** The pin of a certificate, as {@link parsePin} reads it. */
export function formatPin(der: Uint8Array): string {
  return PREFIX + hashOf(der);
}

/**
 * Checks what a peer presented: one certificate besides meta certificates, which is the pinned one, in date, and valid for `host`.
 *
 * @param chain - DER of each certificate, in the order of the handshake
 * @param host - the name dialled. With an IP address the certificate's names are not compared, as derper's clients do: the pin
 *   says already which certificate it must be, and behind NAT the address dialled is often not the one that it names
 * @param now - milliseconds since 1970
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` saying what is wrong with it
 */
export function checkPin(pin: CertificatePin, chain: readonly Uint8Array[], host: string, now = Date.now()): void {
  const [certificate, ...more] = chain.map(parse).filter((each) => !isMetaCertificate(each));
  if (certificate === undefined) throw refusal(`no certificate, expected the one with the pin ${PREFIX}${pin}`);
  if (more.length > 0) throw refusal(`${1 + more.length} certificates, with a pin there must be exactly one`);
  const hash = hashOf(certificate.raw);
  if (hash !== pin) throw refusal(`its hash is ${hash}, the pin says ${pin}`);
  const name = canonicalHost(host) ?? host;
  if (isIP(name) === 0 && certificate.checkHost(name, { subject: 'never' }) === undefined) {
    throw refusal(`it is not valid for ${JSON.stringify(host)}`);
  }
  if (now > Date.parse(certificate.validTo)) throw refusal(`it expired on ${certificate.validTo}`);
  if (now < Date.parse(certificate.validFrom)) {
    throw refusal(`it is not valid before ${certificate.validFrom}; is the clock right?`);
  }
}

function parse(der: Uint8Array, index: number): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch (error) {
    throw refusal(`certificate ${index + 1} of the chain is unreadable`, error);
  }
}

function hashOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('hex');
}

function refusal(reason: string, cause?: unknown): DerpError {
  return new DerpError('ERR_DERP_CERTIFICATE', `pinned certificate: ${reason}`, { cause });
}
