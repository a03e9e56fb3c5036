/** Where one certificate is kept between runs. */
import type { CertificateText } from '../tls/tls_context.js';
import type { CertificateFolder } from './certificate_folder.js';
import { checkPair, type KeyPair } from './key_pair.js';
import { goKeyPem, keyThenChain, splitKeyAndChain } from './pem.js';

export interface CertificateStore {
  /**
   * What is kept, dates unjudged; `undefined` when there is nothing.
   *
   * @throws when it cannot be read or does not fit, naming the file
   */
  load(): Promise<KeyPair | undefined>;
  /** Replaces what is kept; when this rejects, that is still there. */
  save(certificate: CertificateText): Promise<void>;
}

/** derper's file for a DNS name: the key, then the chain. `name` is the host, for RSA keys with `+rsa` behind it. */
export function hostStore(folder: CertificateFolder, host: string, name: string): CertificateStore {
  const path = folder.pathOf(name);
  return {
    load: async () => {
      const text = await folder.read(name);
      return text === undefined ? undefined : checkPair(splitKeyAndChain(text, path), host, { cert: path, key: path });
    },
    save: (certificate) => folder.write([{ name, text: keyThenChain(certificate) }]),
  };
}

/** derper's files for an IP address, in whose name `.` stands for `:`. */
export function addressStore(folder: CertificateFolder, address: string): CertificateStore {
  const base = address.replaceAll(':', '.');
  const [certName, keyName] = [`${base}.crt`, `${base}.key`];
  return {
    load: async () => {
      const [cert, key] = await Promise.all([folder.read(certName), folder.read(keyName)]);
      if (cert === undefined || key === undefined) return undefined;
      return checkPair({ cert, key }, address, { cert: folder.pathOf(certName), key: folder.pathOf(keyName) });
    },
    save: ({ cert, key }) =>
      folder.write([
        { name: keyName, text: goKeyPem(key) },
        { name: certName, text: cert, mode: 0o644 },
      ]),
  };
}
