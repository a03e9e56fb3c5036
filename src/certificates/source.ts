/** Where a relay's certificates come from. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { DerpError } from '../errors.js';
import type { Logger } from '../log.js';
import type { CertificateSink } from './certificate_sink.js';
import { type CertificateExpiry, ExpiryWatch } from './expiry.js';
import { addressOf } from './key_pair.js';
import { filesOf, ManualCertificate, type ManualOptions } from './manual.js';
import { makeMissingPair } from './self_signed.js';

/** Names as the flags have them. */
export type CertificateMode = 'manual' | 'letsencrypt' | 'gcp';

export interface CertificateConfig {
  mode: CertificateMode;
  /** Of certificates and keys. */
  folder: string;
  /** DNS name or IP address that clients know the relay by. */
  hostname: string;
}

/** Gives a sink its certificates and keeps them valid. */
export interface CertificateSource {
  /** What is served now. */
  expiry(): CertificateExpiry[];
  /** What `CertName` of a DERP map calls the certificate; undefined where clients verify it by its name. */
  readonly pin: string | undefined;
  /** Looks again at what operators replace; what became of it is logged. */
  reload(): void;
  /** Called for a name that the sink was told to expect, when a handshake waits for it. */
  wanted?(name: string): void;
  /** Answers HTTP-01 validations on the plain port; whether the request was one. */
  challenge?(request: IncomingMessage, response: ServerResponse): boolean;
  close(): void;
}

/**
 * Opens the source that `config` names; the sink has what there is then.
 *
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` saying why there is no certificate
 */
export async function certificateSource(
  config: CertificateConfig,
  sink: CertificateSink,
  logger: Logger,
): Promise<CertificateSource> {
  switch (config.mode) {
    case 'manual':
      return manualSource(config, sink, logger);
    case 'letsencrypt':
    case 'gcp':
      throw new DerpError('ERR_DERP_CERTIFICATE', `certificates of the kind ${config.mode} are not available yet`);
  }
}

async function manualSource(
  { folder, hostname }: CertificateConfig,
  sink: CertificateSink,
  logger: Logger,
): Promise<CertificateSource> {
  const ip = addressOf(hostname);
  const certificate = await openManual({ folder, hostname, sink, logger, onChange: () => watch.check() }, ip);
  const watch = new ExpiryWatch(() => certificate.expiry(), logger);
  watch.check();
  return {
    expiry: () => certificate.expiry(),
    get pin() {
      return ip === undefined ? undefined : certificate.pin;
    },
    reload: () => certificate.reload(),
    close: () => {
      certificate.close();
      watch.close();
    },
  };
}

async function openManual(options: ManualOptions, ip: string | undefined): Promise<ManualCertificate> {
  try {
    if (ip !== undefined) await makeMissingPair(filesOf(options.folder, options.hostname), ip, options.logger);
    return new ManualCertificate(options);
  } catch (error) {
    if (!(error instanceof DerpError)) throw error;
    throw new DerpError(
      error.code,
      `can not load x509 key pair for hostname ${JSON.stringify(options.hostname)}: ${error.message}; -certmode manual takes it from -certdir`,
      { cause: error },
    );
  }
}
