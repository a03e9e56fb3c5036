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

/** Files of further roots in PEM, of Go's and of Node's programs. */
const VARIABLES = ['SSL_CERT_FILE', 'NODE_EXTRA_CA_CERTS'];

/**
 * Node's roots, the system's, and those of `SSL_CERT_FILE` and `NODE_EXTRA_CA_CERTS`, as PEM.
 *
 * @throws {@link DerpError} `ERR_DERP_ACME` when a file that a variable names cannot be read
 */
export function trustedRoots(env: NodeJS.ProcessEnv): string[] {
  const roots = [...rootCertificates];
  const system = SYSTEM_BUNDLES.map(readIfThere).find((pem) => pem !== undefined);
  if (system !== undefined) roots.push(system);
  for (const name of VARIABLES) {
    const path = env[name];
    if (path !== undefined && path !== '') roots.push(readNamed(name, path));
  }
  return roots;
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
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new DerpError('ERR_DERP_ACME', `${name}: ${(error as Error).message}`, { cause: error });
  }
}
