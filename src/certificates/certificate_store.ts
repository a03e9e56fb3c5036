/** Where one certificate is kept between runs. */

import type { CertificateFolder } from './certificate_folder.js';
import { type CheckedCertificate, checkPair, goKeyPem, splitKeyAndChain } from './certificate_pair.js';
import type { Certificate } from './certificate_sink.js';

export interface CertificateStore {
  /**
   * What is kept, dates unjudged; `undefined` when there is nothing.
   *
   * @throws when it cannot be read or does not fit, naming the file
   */
  load(): Promise<CheckedCertificate | undefined>;
  /** Replaces what is kept; when this rejects, that is still there. */
  save(certificate: Certificate): Promise<void>;
}

/** The reference's file for a DNS name: the key, then the chain. `name` is the host, for RSA keys with `+rsa` behind it. */
export function hostStore(folder: CertificateFolder, host: string, name: string): CertificateStore {
  return {
    load: async () => {
      const text = await folder.read(name);
      if (text === undefined) return undefined;
      return naming(folder.pathOf(name), () => checkPair(splitKeyAndChain(text), host));
    },
    save: (certificate) => folder.write([{ name, text: keyThenChain(certificate) }]),
  };
}

/** The reference's files for an IP address, in whose name `.` stands for `:`. */
export function addressStore(folder: CertificateFolder, address: string): CertificateStore {
  const base = address.replaceAll(':', '.');
  return {
    load: async () => {
      const [cert, key] = await Promise.all([folder.read(`${base}.crt`), folder.read(`${base}.key`)]);
      if (cert === undefined || key === undefined) return undefined;
      return naming(folder.pathOf(`${base}.crt`), () => checkPair({ cert, key }, address));
    },
    save: ({ cert, key }) =>
      folder.write([
        { name: `${base}.key`, text: goKeyPem(key) },
        { name: `${base}.crt`, text: cert, mode: 0o644 },
      ]),
  };
}

/** The reference's way to keep a key and its chain in one file. */
export function keyThenChain({ cert, key }: Certificate): string {
  return goKeyPem(key) + cert;
}

function naming<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`, { cause: error });
  }
}
