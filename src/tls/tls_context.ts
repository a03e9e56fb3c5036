/** Certificates that a relay presents over TLS. */
import { badOption, type Checks, checkFunction, checkOptions, checkString, wrong } from '../checks.js';
import { DerpError } from '../errors.js';
import { canonicalHost } from '../host_name.js';
import { type NativeTlsServer, native } from '../native.js';
import { checkOnePem, type Pem, pemText } from './pem_option.js';

/** A certificate with its key. */
export interface Certificate {
  /** PEM: the leaf first, then its intermediates. */
  cert: Pem;
  /** PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted. */
  key: Pem;
}

/** A {@link Certificate} as text, which is what sources of certificates keep. */
export interface CertificateText extends Certificate {
  cert: string;
  key: string;
}

export interface TlsContextOptions {
  /**
   * Called once for each expected name for which a handshake waits; see {@link TlsContext.expect}. Again when the name was given up
   * and is expected again, or its certificate was deleted.
   */
  onWanted?: (name: string) => void;
}

/** The native side of a context, for the relay that listens with it. */
export let nativeOf: (context: TlsContext) => NativeTlsServer;

/** Tells a context that a handshake waits for the certificate of `name`. */
export let tellWanted: (context: TlsContext, name: string) => void;

/**
 * The certificates of listeners, by the name that clients ask for; they may change at any moment, and connections that are made keep
 * theirs. Give it to `Server.listen`.
 *
 * @example
 * ```ts
 * const tls = new TlsContext();
 * tls.set('derp.example.com', [{ cert: readFileSync('fullchain.pem', 'utf8'), key: readFileSync('key.pem', 'utf8') }]);
 * await relay.listen({ port: 443, tls });
 * ```
 */
export class TlsContext {
  readonly #native: NativeTlsServer = new native.TlsServer();
  readonly #onWanted: (name: string) => void;

  static {
    nativeOf = (context) => context.#native;
    tellWanted = (context, name) => context.#onWanted(name);
  }

  /** @throws DerpError `ERR_DERP_BAD_OPTION` */
  constructor(options: TlsContextOptions = {}) {
    checkOptions<TlsContextOptions>(options, 'options', { onWanted: checkFunction });
    this.#onWanted = options.onWanted ?? (() => undefined);
  }

  /**
   * Answers handshakes for `name` with `certificates` from now on: of several, one per key type, the first that suits the client.
   * @param name - a DNS name (any case, in Unicode or ASCII, with or without its trailing dot) that clients must send as SNI; an IP address: clients that connect to that address and send no
   *   SNI or that IP; `*`: every client that matches no other name, also without SNI. Set it beside a DNS name to serve clients that send another
   *   name or none
   * @throws DerpError `ERR_DERP_BAD_OPTION`; `ERR_DERP_CERTIFICATE` when a PEM is unreadable or key and certificate do not belong
   *   together; what was there stays
   */
  set(name: string, certificates: readonly Certificate[]): void {
    const host = canonical(name);
    if (!Array.isArray(certificates)) wrong('certificates', certificates, 'an array');
    const texts = certificates.flatMap((certificate, index) => textsOf(certificate, `certificates[${index}]`));
    certified(name, () => this.#native.set(host, texts));
  }

  /** Handshakes for `name` fail, or wait if it is expected. */
  delete(name: string): void {
    this.#native.remove(canonical(name));
  }

  /**
   * Answers validations of `name` by TLS-ALPN-01 (RFC 8737): handshakes with the protocol `acme-tls/1`.
   * @throws DerpError `ERR_DERP_BAD_OPTION`, `ERR_DERP_CERTIFICATE`
   */
  setChallenge(name: string, certificate: Certificate): void {
    const host = canonical(name);
    const [cert, key] = textsOf(certificate, 'certificate');
    certified(name, () => this.#native.setChallenge(host, cert, key));
  }

  deleteChallenge(name: string): void {
    this.#native.removeChallenge(canonical(name));
  }

  /**
   * Says that `name` will get a certificate: until then its handshakes wait, up to their deadline, instead of failing.
   * @param name - as in {@link set}; `*`: every address of this machine that is connected to without SNI, or with that address
   */
  expect(name: string): void {
    this.#native.expect(canonical(name));
  }

  /** Takes {@link expect} back; handshakes that wait fail. */
  unexpect(name: string): void {
    this.#native.unexpect(canonical(name));
  }
}

/** Where sources of certificates put them. */
export type CertificateSink = Pick<
  TlsContext,
  'set' | 'delete' | 'setChallenge' | 'deleteChallenge' | 'expect' | 'unexpect'
>;

const CERTIFICATE_CHECKS: Checks<Certificate> = { cert: checkOnePem, key: checkOnePem };

/** Certificate and key as PEM texts. @throws DerpError `ERR_DERP_BAD_OPTION` */
function textsOf(certificate: Certificate, name: string): [cert: string, key: string] {
  checkOptions<Certificate>(certificate, name, CERTIFICATE_CHECKS, `${name}.`);
  for (const part of ['cert', 'key'] as const) checkOnePem(certificate[part], `${name}.${part}`);
  return [pemText(certificate.cert), pemText(certificate.key)];
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` */
function canonical(name: string): string {
  checkString(name, 'name');
  const host = name === '*' ? name : canonicalHost(name);
  if (host !== undefined) return host;
  throw badOption(`name ${JSON.stringify(name)}: not a DNS name, an IP address or "*"; certificates are found by it`);
}

function certified(name: string, act: () => void): void {
  try {
    act();
  } catch (cause) {
    const { message } = cause as Error;
    const advice = TOO_WEAK.test(message)
      ? `: too weak for OpenSSL ${process.versions.openssl}; take an ECDSA key, or RSA of 2,048 bits or more, and SHA-256`
      : '';
    throw new DerpError('ERR_DERP_CERTIFICATE', `certificate of ${JSON.stringify(name)}: ${message}${advice}`, {
      cause,
    });
  }
}

/** What OpenSSL says of keys and signatures below its security level. */
const TOO_WEAK = /key too small|md too weak/;
