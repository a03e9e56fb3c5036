/** Trusted roots of a dialling client: the certification authorities of Node, of the system, and of two variables. */
import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import { DerpError } from '../errors.js';
import { type NativeTlsClient, native } from '../native.js';

/** Where systems keep their bundle: Debian, Fedora, openSUSE, Alpine and FreeBSD. The first that exists is read. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

let client: NativeTlsClient | undefined;

/**
 * The client's role with all roots, made when it is first asked for: `SSL_CERT_FILE` in place of the system's bundle, as Go and OpenSSL
 * have it, and `NODE_EXTRA_CA_CERTS` besides.
 * @throws DerpError `ERR_DERP_CERTIFICATE` when a file that a variable names is unreadable
 */
export function tlsClient(): NativeTlsClient {
  client ??= new native.TlsClient(rootsPem(process.env));
  return client;
}

/**
 * The client's role with the roots of one PEM text and no others; the last text's is kept.
 * @param option - what the text was given by, for the message
 * @throws DerpError `ERR_DERP_CERTIFICATE` when it holds no certificate
 */
export function rootsClient(ca: string, option: string): NativeTlsClient {
  if (ca.trim() === '') {
    throw new DerpError('ERR_DERP_CERTIFICATE', `${option}: holds no certificate, needs PEM text`);
  }
  if (last?.ca !== ca) {
    try {
      last = { ca, client: new native.TlsClient(ca) };
    } catch (cause) {
      throw new DerpError('ERR_DERP_CERTIFICATE', `${option}: ${(cause as Error).message}`, { cause });
    }
  }
  return last.client;
}

let last: { ca: string; client: NativeTlsClient } | undefined;

/**
 * The certificates of all roots, in PEM.
 * @throws DerpError `ERR_DERP_CERTIFICATE` when a file that a variable names is unreadable
 */
export function rootsPem({ SSL_CERT_FILE, NODE_EXTRA_CA_CERTS }: NodeJS.ProcessEnv): string {
  const bundles = [rootCertificates.join('\n'), SSL_CERT_FILE ? named('SSL_CERT_FILE', SSL_CERT_FILE) : systemBundle()];
  if (NODE_EXTRA_CA_CERTS) bundles.push(named('NODE_EXTRA_CA_CERTS', NODE_EXTRA_CA_CERTS));
  return bundles.join('\n');
}

function systemBundle(): string {
  for (const path of SYSTEM_BUNDLES) {
    try {
      return readFileSync(path, 'latin1');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') continue; // not for us to read: Node's own roots remain
    }
  }
  return '';
}

function named(variable: string, path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch (cause) {
    throw new DerpError('ERR_DERP_CERTIFICATE', `${variable}: ${(cause as Error).message}`, { cause });
  }
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  throw new DerpError('ERR_DERP_CERTIFICATE', `${variable}: no PEM certificate in ${path}`);
}
