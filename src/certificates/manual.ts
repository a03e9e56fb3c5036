/** `-certmode manual`: a certificate that somebody else puts into files, and replaces there. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DerpError } from '../errors.js';
import { POLL_INTERVAL, stateOf } from '../file_state.js';
import { addressOf, canonicalHost } from '../host_name.js';
import type { Logger } from '../log.js';
import { formatPin } from '../tls/pin.js';
import type { CertificateSink } from '../tls/tls_context.js';
import { chainFaults, isSelfSigned } from './chain.js';
import type { CertificateLife } from './expiry.js';
import { checkName, type KeyPair, type PairFiles, readKeyPair } from './key_pair.js';

export interface ManualOptions {
  files: PairFiles;
  /** DNS name or IP address. */
  hostname: string;
  sink: CertificateSink;
  logger: Logger;
  /** Called when another certificate is served than before. */
  onChange?: () => void;
  /** Milliseconds. Default: 1,000. */
  pollInterval?: number;
}

/**
 * The files of `hostname`. Their name is the host as it was written, without its trailing dot and without what has a meaning in paths, as
 * derper looks for it. If there are no such files, it is the host as clients ask for it: in lower case and ASCII.
 */
export function filesOf(folder: string, hostname: string): PairFiles {
  const written = pairNamed(folder, hostname.replace(/\.$/, ''));
  const canonical = pairNamed(folder, canonicalHost(hostname) ?? hostname);
  const exists = ({ cert, key }: PairFiles) => existsSync(cert) || existsSync(key);
  return !exists(written) && exists(canonical) ? canonical : written;
}

function pairNamed(folder: string, host: string): PairFiles {
  const name = host.replace(/[^A-Za-z0-9.-]/g, '');
  return { cert: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) };
}

/**
 * Serves the pair of `hostname` and follows its files. While the files hold no valid pair, the one in force stays: they are often replaced
 * one after the other.
 */
export class ManualCertificate {
  readonly #options: ManualOptions;
  readonly #files: PairFiles;
  readonly #timer: NodeJS.Timeout;
  #pair: KeyPair;
  /** State of the files that was dealt with: served, or reported. */
  #settled: string;
  /** Whether the last look found no valid pair; the next one decides, for a writer may be halfway. */
  #doubtful = false;

  /** @throws {@link DerpError} `ERR_DERP_CERTIFICATE` when there is no valid pair */
  constructor(options: ManualOptions) {
    this.#options = options;
    this.#files = options.files;
    this.#settled = this.#state();
    this.#pair = this.#load();
    this.#tellFaults();
    this.#timer = setInterval(() => this.#poll(), options.pollInterval ?? POLL_INTERVAL).unref();
  }

  /** What `CertName` of a DERP map calls the certificate; undefined for one that an authority issued, which clients verify by its name. */
  get pin(): string | undefined {
    const { leaf } = this.#pair;
    return isSelfSigned(leaf) ? formatPin(leaf.raw) : undefined;
  }

  expiry(): CertificateLife[] {
    const { notBefore, notAfter } = this.#pair;
    return [{ name: this.#options.hostname, notBefore: new Date(notBefore), notAfter: new Date(notAfter) }];
  }

  /** Reads the files now, and says what became of it. */
  reload(): void {
    const before = this.#pair;
    this.#settled = this.#state();
    if (!this.#tryLoad()) return;
    if (this.#pair === before) this.#options.logger.info({}, `certificate of ${this.#options.hostname}: unchanged`);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #poll(): void {
    const state = this.#state();
    if (state === this.#settled) return;
    const last = this.#doubtful;
    this.#doubtful = !this.#tryLoad(last);
    if (last || !this.#doubtful) {
      this.#settled = state;
      this.#doubtful = false;
    }
  }

  /** Whether the files hold a valid pair, which is served then. */
  #tryLoad(report = true): boolean {
    const { hostname, logger, onChange } = this.#options;
    try {
      const before = this.#pair;
      const pair = this.#load();
      if (pair.cert === before.cert && pair.key === before.key) return true;
      this.#pair = pair;
      const pin = this.pin === undefined || addressOf(hostname) === undefined ? '' : `, ${this.pin}`;
      logger.info({}, `certificate of ${hostname}: read anew, valid until ${isoDate(pair.notAfter)}${pin}`);
      this.#tellFaults();
      onChange?.();
      return true;
    } catch (error) {
      if (!(error instanceof DerpError)) throw error;
      if (report) {
        logger.error({}, `certificate of ${hostname}: not replaced, the one in force stays: ${error.message}`);
      }
      return false;
    }
  }

  /** Reads the pair and serves it. */
  #load(): KeyPair {
    const { hostname, sink } = this.#options;
    const pair = readKeyPair(this.#files);
    checkName(pair, hostname, this.#files);
    sink.set(addressOf(hostname) === undefined ? hostname : '*', [{ cert: pair.cert, key: pair.key }]);
    return pair;
  }

  #tellFaults(): void {
    const { hostname, logger } = this.#options;
    for (const fault of faultsOf(this.#pair, addressOf(hostname) === undefined, this.#files)) {
      logger.warn({}, `certificate of ${hostname}: ${fault}`);
    }
  }

  /** Changes when one of the files, or the end of a link, becomes another. */
  #state(): string {
    return [this.#files.cert, this.#files.key].map(stateOf).join();
  }
}

/** What an operator should know of a pair that can be served. */
function faultsOf({ leaf, chain, notBefore }: KeyPair, isName: boolean, files: PairFiles): string[] {
  const faults: string[] = [];
  if (notBefore > Date.now()) {
    faults.push(`not valid before ${isoDate(notBefore)}, clients refuse it until then; is the clock right?`);
  }
  if (!isSelfSigned(leaf)) faults.push(...chainFaults(chain));
  else if (isName) {
    faults.push(
      `it is self-signed: nodes refuse it unless their DERP map has "CertName":"${formatPin(leaf.raw)}" for this relay`,
    );
  }
  const { mode = 0 } = statSync(files.key, { throwIfNoEntry: false }) ?? {};
  if ((mode & 0o004) !== 0) {
    faults.push(`every user of this machine can read the key ${files.key}: chmod 600 it`);
  }
  return faults;
}

function isoDate(time: number): string {
  return new Date(time).toISOString();
}
