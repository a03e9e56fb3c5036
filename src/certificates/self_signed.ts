/** A certificate that a relay makes for itself where it has no name, only an IP address: clients know it by its pin. */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, webcrypto } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createFile, type FileContent, replaceFiles } from '../durable_file.js';
import { DerpError, reasonOf } from '../errors.js';
import type { Logger } from '../log.js';
import { isSelfSigned } from './chain.js';
import { type KeyPair, type PairFiles, readKey, readKeyPair } from './key_pair.js';

/** Milliseconds: by less, a certificate that is not valid yet may be right and this machine's clock wrong (a time zone, for instance). */
const CLOCK_TOLERANCE = 86_400_000;

/** Before this moment, milliseconds since 1970, derplane did not exist: a clock that says so was never set. */
const EARLIEST_CLOCK = Date.UTC(2026, 0, 1);

/** Milliseconds between two looks at whether a certificate is still in date: the clock may be set right long after the start. */
const CARE_INTERVAL = 60_000;

/** Milliseconds after a failed attempt to replace one. */
const CARE_RETRY = 3_600_000;

/**
 * Makes what is missing of the pair of an IP address: a key (ECDSA P-256, SEC 1, mode 0600), and a certificate of one year for the key that is
 * there then (mode 0644). A key is never replaced; a certificate is when its key is gone, or when it is self-signed and out of date.
 *
 * @returns whether there was something to make
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` when the files cannot be made; nothing half-written is left
 */
export async function makePair(files: PairFiles, ip: string, logger: Logger): Promise<boolean> {
  const [hasKey, hasCertificate] = [existsSync(files.key), existsSync(files.cert)];
  const fault = !hasCertificate ? undefined : hasKey ? dateFault(files) : `its key ${files.key} is missing`;
  if (hasKey && hasCertificate && fault === undefined) return false;
  if (!isClockSet()) {
    logger.warn(
      {},
      `this machine's clock says ${new Date().toISOString()}: set it right (NTP), for certificates have dates`,
    );
  }
  if (!hasKey) await write(createFile, { path: files.key, text: generateKey(), mode: 0o600 });
  // Read back: another relay that starts in the same folder may have been faster, and there must be one pair.
  const text = await selfSigned(readKey(files.key).key, ip);
  if (fault !== undefined) {
    const made = hasKey ? 'a new one is made' : 'both are made anew';
    logger.warn({}, `${files.cert}: ${fault}, so ${made}; its pin changed, put the new one into the DERP map`);
  }
  await write(hasCertificate ? replaceFiles : createFile, { path: files.cert, text, mode: 0o644 });
  return true;
}

/** Why a self-signed certificate is of no use to anyone now: it is out of date, by a clock that can be believed. */
function dateFault(files: PairFiles, now = Date.now()): string | undefined {
  const pair = readIfUsable(files);
  if (pair === undefined || !isClockSet(now) || !isSelfSigned(pair.leaf)) return undefined;
  if (now > pair.notAfter) return `it expired on ${new Date(pair.notAfter).toISOString()}`;
  if (now < pair.notBefore - CLOCK_TOLERANCE) return `it is not valid before ${new Date(pair.notBefore).toISOString()}`;
  return undefined;
}

/** Undefined for what cannot be served, about which who serves it will say more. */
function readIfUsable(files: PairFiles): KeyPair | undefined {
  try {
    return readKeyPair(files);
  } catch (error) {
    if (error instanceof DerpError) return undefined;
    throw error;
  }
}

function isClockSet(now = Date.now()): boolean {
  return now >= EARLIEST_CLOCK;
}

/** Replaces the certificate of an IP address when it gets out of date while the relay runs. */
export class SelfSignedCare {
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> | undefined;
  #notBefore = 0;

  /**
   * @param onMade - called when the files hold another certificate
   * @param make - for tests
   */
  constructor(files: PairFiles, ip: string, logger: Logger, onMade: () => void, make = makePair) {
    const look = async () => {
      try {
        if (dateFault(files) !== undefined && (await make(files, ip, logger))) onMade();
      } catch (error) {
        if (!(error instanceof DerpError)) throw error;
        this.#notBefore = performance.now() + CARE_RETRY;
        logger.error({}, `certificate of ${ip}: it is out of date and cannot be replaced: ${error.message}`);
      }
    };
    this.#timer = setInterval(() => {
      if (this.#looking !== undefined || performance.now() < this.#notBefore) return;
      this.#looking = look().finally(() => {
        this.#looking = undefined;
      });
    }, CARE_INTERVAL).unref();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }
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
    throw new DerpError('ERR_DERP_CERTIFICATE', `${file.path}: cannot be created: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}
