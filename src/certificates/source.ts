/** Where a relay's certificates come from. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { DerpError } from '../errors.js';
import { addressOf } from '../host_name.js';
import type { Logger } from '../log.js';
import type { CertificateSink } from '../tls/tls_context.js';
import type { AcmeOptions } from './acme.js';
import { type CertificateExpiry, ExpiryWatch } from './expiry.js';
import type { PairFiles } from './key_pair.js';
import { filesOf, ManualCertificate, type ManualOptions } from './manual.js';
import { makePair, SelfSignedCare } from './self_signed.js';

/** Names as the flags have them. */
export type CertificateMode = 'manual' | 'letsencrypt' | 'gcp';

export interface CertificateConfig {
  mode: CertificateMode;
  /** Of certificates and keys. */
  folder: string;
  /** With `manual`: these files in place of the folder's; they are never made. */
  files?: PairFiles;
  /** DNS name or IP address that clients know the relay by. */
  hostname: string;
  /** Whether clients that ask for another name, or for none, get the certificate of `hostname` too. */
  anyName?: boolean;
  /** What an ACME authority is asked with. */
  acme: Pick<AcmeOptions, 'directory' | 'email' | 'eab' | 'ipCertificates' | 'httpChallenge'>;
}

/** Gives a sink its certificates and keeps them valid. */
export interface CertificateSource {
  /** What is served now. */
  expiry(): CertificateExpiry[];
  /** What `CertName` of a DERP map calls the certificate of an IP address; undefined where clients verify it by its name. */
  readonly pin: string | undefined;
  /** Asks for what is missing; to be called once the ports listen, which an authority connects to. */
  start(): void;
  /** Reads replaced files again and logs the result. Undefined for sources without such files. */
  readonly reload?: () => void;
  /** Called when a handshake waits for a name that the sink expects. */
  readonly wanted?: (name: string) => void;
  /** Answers HTTP-01 validations on the plain port; whether the request was one. */
  readonly challenge?: (request: IncomingMessage, response: ServerResponse) => boolean;
  close(): Promise<void>;
}

/**
 * Opens the source that `config` names; the sink has what there is then.
 *
 * @param onPinChange - called while it runs, when clients must know the certificate of an IP address by another pin than before
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` saying why there is no certificate; `ERR_DERP_BAD_OPTION` when parts of `config` do not
 *   fit together
 */
export async function certificateSource(
  config: CertificateConfig,
  sink: CertificateSink,
  logger: Logger,
  onPinChange: () => void = () => undefined,
): Promise<CertificateSource> {
  return config.mode === 'manual'
    ? manualSource(config, sink, logger, onPinChange)
    : acmeSource(config, config.mode, sink, logger);
}

async function acmeSource(
  { folder, hostname, acme }: CertificateConfig,
  mode: AcmeOptions['mode'],
  sink: CertificateSink,
  logger: Logger,
): Promise<CertificateSource> {
  // Loaded only here: it costs a start with other certificates some of the time in which clients wait.
  const { acmeCertificates } = await import('./acme.js');
  const source = await acmeCertificates({ ...acme, mode, certDir: folder, hostname, sink, logger });
  const watch = new ExpiryWatch(() => source.expiry(), logger, 'its renewal is overdue');
  return {
    expiry: () => source.expiry(),
    pin: undefined,
    start: () => source.start(),
    wanted: (name) => source.wanted(name),
    challenge: (request, response) => source.challenge(request, response),
    close: () => {
      watch.close();
      return source.close();
    },
  };
}

async function manualSource(
  { folder, hostname, files: given }: CertificateConfig,
  sink: CertificateSink,
  logger: Logger,
  onPinChange: () => void,
): Promise<CertificateSource> {
  const ip = addressOf(hostname);
  const files = given ?? filesOf(folder, hostname);
  const made = given === undefined ? ip : undefined;
  const onChange = () => {
    watch.check();
    if (ip !== undefined && certificate.pin !== pin) onPinChange();
    pin = certificate.pin;
  };
  const certificate = await openManual({ files, hostname, sink, logger, onChange }, made, given);
  let { pin } = certificate;
  const watch = new ExpiryWatch(() => certificate.expiry(), logger, 'put a new one in its place');
  watch.check();
  const care = made === undefined ? undefined : new SelfSignedCare(files, made, logger, () => certificate.reload());
  return {
    expiry: () => certificate.expiry(),
    get pin() {
      return ip === undefined ? undefined : certificate.pin;
    },
    start: () => {},
    reload: () => certificate.reload(),
    close: async () => {
      await care?.close();
      certificate.close();
      watch.close();
    },
  };
}

/**
 * @param made - the IP address whose pair is made when it is missing
 * @param given - the files, if flags name them
 */
async function openManual(
  options: ManualOptions,
  made: string | undefined,
  given: PairFiles | undefined,
): Promise<ManualCertificate> {
  try {
    if (made !== undefined) await makePair(options.files, made, options.logger);
    return new ManualCertificate(options);
  } catch (error) {
    if (!(error instanceof DerpError)) throw error;
    const where = given === undefined ? '-certmode manual takes it from -certdir' : givenText(given);
    throw new DerpError(
      error.code,
      `can not load x509 key pair for hostname ${JSON.stringify(options.hostname)}: ${error.message}; ${where}`,
      { cause: error },
    );
  }
}

function givenText({ cert, key }: PairFiles): string {
  return `the files are those of -cert ${cert} and -key ${key}, for the host of -hostname`;
}
