/** The certificate that all relays of a bench serve: made once, in a folder of its own that goes when the bench ends. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addon, type BenchCertificate } from './load.js';

/** The relays' host name; the files are called as Go's `derper -certmode manual` looks for them. */
export const CERTIFICATE_HOST = '127.0.0.1';

let folder: string | undefined;

/** The folder with `127.0.0.1.crt` and `.key`. */
export function certificateFolder(): string {
  if (folder !== undefined) return folder;
  const made = mkdtempSync(join(tmpdir(), 'derplane-bench-'));
  process.on('exit', () => rmSync(made, { recursive: true, force: true }));
  const { cert, key } = addon.makeCertificate();
  writeFileSync(join(made, `${CERTIFICATE_HOST}.crt`), cert);
  writeFileSync(join(made, `${CERTIFICATE_HOST}.key`), key, { mode: 0o600 });
  folder = made;
  return made;
}

export function readCertificate(from: string): BenchCertificate {
  const read = (ending: string) => readFileSync(join(from, `${CERTIFICATE_HOST}.${ending}`), 'utf8');
  return { cert: read('crt'), key: read('key') };
}
