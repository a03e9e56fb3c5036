/** A certificate that a relay makes for itself where it has no name, only an IP address: clients know it by its pin. */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, webcrypto } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createFile, type FileContent, replaceFiles } from '../durable_file.js';
import { DerpError, reasonOf } from '../errors.js';
import type { Logger } from '../log.js';
import { type PairFiles, readKey } from './key_pair.js';

/**
 * Makes what is missing of the pair of an IP address: a key (ECDSA P-256, SEC 1, mode 0600), and a certificate of one year for the key that is
 * there then (mode 0644). A key is never replaced; a certificate whose key is gone is.
 *
 * @returns whether there was something to make
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` when the files cannot be made; nothing half-written is left
 */
export async function makeMissingPair(files: PairFiles, ip: string, logger: Logger): Promise<boolean> {
  const newKey = !existsSync(files.key);
  const orphan = newKey && existsSync(files.cert);
  if (!newKey && existsSync(files.cert)) return false;
  if (newKey) await write(createFile, { path: files.key, text: generateKey(), mode: 0o600 });
  // Read back: another relay that starts in the same folder may have been faster, and there must be one pair.
  const text = await selfSigned(readKey(files.key).key, ip);
  if (orphan) logger.warn({}, `${files.cert}: its key ${files.key} is missing, so both are made anew`);
  await write(orphan ? replaceFiles : createFile, { path: files.cert, text, mode: 0o644 });
  return true;
}

function generateKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return privateKey.export({ type: 'sec1', format: 'pem' }) as string;
}

/** PEM of a certificate by the key's own signature, for one IP address, from now on for a year. */
async function selfSigned(key: KeyObject, ip: string): Promise<string> {
  // Loaded only here: it costs a start 150 ms, and a relay does this once.
  const x509 = await import('@peculiar/x509');
  const algorithm = algorithmOf(key);
  const notBefore = new Date();
  const notAfter = new Date(notBefore);
  notAfter.setUTCFullYear(notAfter.getUTCFullYear() + 1);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: [{ CN: [ip] }],
    notBefore,
    notAfter,
    keys: await importKeys(key, algorithm),
    signingAlgorithm: algorithm,
    extensions: [
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'ip', value: ip }]),
    ],
  });
  return `${certificate.toString('pem')}\n`;
}

type Algorithm = { name: string; hash?: string; namedCurve?: string };

function algorithmOf(key: KeyObject): Algorithm {
  const curves: Record<string, string> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' };
  if (key.asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  if (key.asymmetricKeyType === 'ed25519') return { name: 'Ed25519' };
  return { name: 'ECDSA', hash: 'SHA-256', namedCurve: curves[key.asymmetricKeyDetails!.namedCurve!]! };
}

async function importKeys(key: KeyObject, algorithm: Algorithm): Promise<webcrypto.CryptoKeyPair> {
  const { subtle } = webcrypto;
  const privateKey = await subtle.importKey('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), algorithm, false, [
    'sign',
  ]);
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' });
  return { privateKey, publicKey: await subtle.importKey('spki', spki, algorithm, true, ['verify']) };
}

/** 128 random bits, as a positive number. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0]! &= 0x7f;
  return bytes.toString('hex');
}

async function write(make: (file: FileContent) => Promise<unknown>, file: FileContent): Promise<void> {
  try {
    await make(file);
  } catch (error) {
    throw new DerpError('ERR_DERP_CERTIFICATE', `${file.path}: cannot be made: ${reasonOf(error)}`, { cause: error });
  }
}
