/** Which authorities an ACME server's own certificate may come from. */
import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import { DerpError } from '../errors.js';

/** Where Linux distributions keep theirs; the first that exists counts. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/**
 * Node's roots, the system's or in their place those of `SSL_CERT_FILE`, and those of `NODE_EXTRA_CA_CERTS`, as PEM.
 *
 * @throws {@link DerpError} `ERR_DERP_ACME` when a file that a variable names cannot be read
 */
export function trustedRoots({ SSL_CERT_FILE, NODE_EXTRA_CA_CERTS }: NodeJS.ProcessEnv): string[] {
  const system = SSL_CERT_FILE ? readNamed('SSL_CERT_FILE', SSL_CERT_FILE) : systemRoots();
  const extra = NODE_EXTRA_CA_CERTS ? readNamed('NODE_EXTRA_CA_CERTS', NODE_EXTRA_CA_CERTS) : '';
  return [...rootCertificates, system, extra].filter((pem) => pem !== '');
}

function systemRoots(): string {
  return SYSTEM_BUNDLES.map(readIfThere).find((pem) => pem !== undefined) ?? '';
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new DerpError('ERR_DERP_ACME', `the system's root certificates: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function readNamed(name: string, path: string): string {
  try {
    const pem = readFileSync(path, 'utf8');
    if (pem.includes('-----BEGIN CERTIFICATE-----')) return pem;
    throw new Error(`there is no PEM certificate in ${path}`);
  } catch (error) {
    throw new DerpError('ERR_DERP_ACME', `${name}: ${(error as Error).message}`, { cause: error });
  }
}
