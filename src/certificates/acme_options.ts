/** What an ACME certificate source is started with, and whether that can be done. */
import { DerpError } from '../errors.js';
import { addressOf, canonicalHost } from '../host_name.js';
import type { Logger } from '../log.js';
import type { CertificateSink } from '../tls/tls_context.js';
import type { ExternalAccount } from './acme_session.js';
import type { Clock } from './clock.js';

const LETS_ENCRYPT = 'https://acme-v02.api.letsencrypt.org/directory';
const GOOGLE = 'https://dv.acme-v02.api.pki.goog/directory';

const LOOPBACK = /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** A DNS name of at least two labels, as certificates name hosts. */
const DNS_NAME = /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

const BASE64URL = /^[\w-]+$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

export interface AcmeOptions {
  /** Where certificates go. */
  sink: CertificateSink;
  /** `-hostname`: a DNS name, or with `ipCertificates` an IP address. */
  hostname: string;
  /** `-certdir`: where certificates, keys and the account are kept, in derper's files. */
  certDir: string;
  /** `-certmode`. */
  mode: 'letsencrypt' | 'gcp';
  /** `-acme-directory`: URL of another ACME server's directory. */
  directory?: string;
  /** `-acme-email`: contact address for the server. Required with `gcp`. */
  email?: string;
  /** `-acme-eab-kid` and `-acme-eab-key`: used, and needed, with `gcp` only. The key is base64url, or base64 with padding. */
  eab?: { kid: string; key: string };
  /** `-acme-ip-certs`: certificates for the IP addresses that clients connect to. */
  ipCertificates: boolean;
  /** Whether the plain port is served, and so HTTP-01 can be answered. Default: true. */
  httpChallenge?: boolean;
  logger: Logger;
  /** Default: the machine's. */
  clock?: Clock;
  /** Where `SSL_CERT_FILE` and `NODE_EXTRA_CA_CERTS` are read from. Default: `process.env`, which names proxies in any case. */
  env?: NodeJS.ProcessEnv;
}

/** Options that fit together. */
export interface AcmePlan {
  directoryUrl: string;
  /** DNS name that a certificate is kept for, in lower case and ASCII. */
  host: string | undefined;
  /** IP address that a certificate is kept for. */
  address: string | undefined;
  email: string | undefined;
  externalAccount: ExternalAccount | undefined;
  /** Whether the server issues certificates for private addresses. */
  anyAddress: boolean;
}

/** @throws {@link DerpError} `ERR_DERP_BAD_OPTION` naming the flag that does not fit, and what to do */
export function planAcme(options: AcmeOptions): AcmePlan {
  const { hostname, mode, certDir, ipCertificates, email } = options;
  if (certDir === '') throw bad('-certdir is missing: certificates and keys need a folder');
  if (ipCertificates && mode !== 'letsencrypt') throw bad('--acme-ip-certs requires --certmode=letsencrypt');
  const address = addressOf(hostname);
  if (address !== undefined) refuseAddress(hostname, mode, ipCertificates);
  return {
    directoryUrl: directoryUrl(options),
    host: address === undefined ? dnsName(hostname) : undefined,
    address,
    email: email === '' ? undefined : email,
    externalAccount: mode === 'gcp' ? externalAccount(options) : undefined,
    anyAddress: options.directory !== undefined && options.directory !== '',
  };
}

function refuseAddress(hostname: string, mode: string, ipCertificates: boolean): void {
  if (mode === 'gcp') throw bad(`--certmode=gcp requires --hostname to be a DNS name; ${hostname} is an IP address`);
  if (ipCertificates) return;
  throw bad(
    `--hostname is an IP address (${hostname}): --certmode=manual makes a self-signed certificate for it, --acme-ip-certs gets one from Let's Encrypt`,
  );
}

function dnsName(hostname: string): string {
  const name = canonicalHost(hostname) ?? '';
  if (DNS_NAME.test(name)) return name;
  throw bad(
    `-hostname ${JSON.stringify(hostname)}: no certificate can be issued for it; it must be a DNS name such as derp.example.com`,
  );
}

function directoryUrl({ directory = '', mode }: AcmeOptions): string {
  if (directory === '') return mode === 'gcp' ? GOOGLE : LETS_ENCRYPT;
  const url = URL.canParse(directory) ? new URL(directory) : undefined;
  const isSafe = url?.protocol === 'https:' || (url?.protocol === 'http:' && LOOPBACK.test(url.hostname));
  if (url !== undefined && isSafe) return url.href;
  throw bad(`-acme-directory ${JSON.stringify(directory)}: must be an https:// URL`);
}

function externalAccount({ eab, email = '' }: AcmeOptions): ExternalAccount {
  if (eab === undefined || eab.kid === '' || eab.key === '') {
    throw bad('--certmode=gcp requires --acme-eab-kid and --acme-eab-key');
  }
  if (email === '') throw bad('--certmode=gcp requires --acme-email');
  const isBase64 = BASE64.test(eab.key) || (BASE64URL.test(eab.key) && eab.key.length % 4 !== 1);
  if (!isBase64) throw bad('-acme-eab-key: must be base64url without padding, or base64 with padding');
  return { kid: eab.kid, hmacKey: eab.key };
}

function bad(message: string): DerpError {
  return new DerpError('ERR_DERP_BAD_OPTION', message);
}
