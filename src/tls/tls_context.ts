/** Who a relay is to those who connect over TLS. */
import { DerpError } from '../errors.js';
import { canonicalHost } from '../host_name.js';
import { type NativeTlsServer, native } from '../native.js';

/** A certificate with its key. */
export interface Certificate {
  /** PEM: the leaf first, then its intermediates. */
  cert: string;
  /** PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted. */
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
const NATIVE: unique symbol = Symbol('native');

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
  readonly [NATIVE]: NativeTlsServer = new native.TlsServer();
  readonly #onWanted: (name: string) => void;

  constructor({ onWanted = () => undefined }: TlsContextOptions = {}) {
    this.#onWanted = onWanted;
  }

  /**
   * Answers handshakes for `name` with `certificates` from now on: of several, one per key type, the first that suits the client.
   * @param name - a DNS name (any case, in Unicode or ASCII, with or without its trailing dot) that clients must send as SNI; an IP address: clients that connect to that address and send no
   *   SNI or that IP; `*`: everybody whom no other name fits, without SNI too
   * @throws DerpError `ERR_DERP_CERTIFICATE` when a PEM is unreadable or key and certificate do not belong together,
   *   `ERR_DERP_BAD_OPTION` for a `name` that is none of these; what was there stays
   */
  set(name: string, certificates: readonly Certificate[]): void {
    const host = canonical(name);
    certified(name, () =>
      this[NATIVE].set(
        host,
        certificates.flatMap(({ cert, key }) => [cert, key]),
      ),
    );
  }

  /** Handshakes for `name` fail, or wait if it is expected. */
  delete(name: string): void {
    this[NATIVE].remove(canonical(name));
  }

  /**
   * Answers validations of `name` by TLS-ALPN-01 (RFC 8737): handshakes with the protocol `acme-tls/1`.
   * @throws DerpError `ERR_DERP_CERTIFICATE`
   */
  setChallenge(name: string, { cert, key }: Certificate): void {
    const host = canonical(name);
    certified(name, () => this[NATIVE].setChallenge(host, cert, key));
  }

  deleteChallenge(name: string): void {
    this[NATIVE].removeChallenge(canonical(name));
  }

  /**
   * Says that `name` will get a certificate: until then its handshakes wait, up to their deadline, instead of failing.
   * @param name - as in {@link set}; `*`: every address of this machine that is connected to without SNI, or with that address
   */
  expect(name: string): void {
    this[NATIVE].expect(canonical(name));
  }

  /** Takes {@link expect} back; handshakes that wait fail. */
  unexpect(name: string): void {
    this[NATIVE].unexpect(canonical(name));
  }

  /** @internal A handshake waits for `name`. */
  wanted(name: string): void {
    this.#onWanted(name);
  }
}

/** Where sources of certificates put them. */
export type CertificateSink = Pick<
  TlsContext,
  'set' | 'delete' | 'setChallenge' | 'deleteChallenge' | 'expect' | 'unexpect'
>;

/** @internal What a listener and the relay's key need of a context. */
export function nativeOf(context: TlsContext): NativeTlsServer {
  return context[NATIVE];
}

function canonical(name: string): string {
  const host = name === '*' ? name : canonicalHost(name);
  if (host !== undefined) return host;
  throw new DerpError(
    'ERR_DERP_BAD_OPTION',
    `name ${JSON.stringify(name)}: not a DNS name, an IP address or "*"; certificates are found by it`,
  );
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
