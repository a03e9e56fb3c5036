/** TLS on a dialled connection: verifies the relay and reads its meta certificate. */
import type { Socket } from 'node:net';
import { isIP } from 'node:net';
import { DerpError } from '../errors.js';
import { canonicalHost } from '../host_name.js';
import type { NativeTlsClient, NativeTlsSession } from '../native.js';
import type { PublicKey } from '../protocol/key.js';
import { readMetaCertificate } from '../tls/meta_certificate.js';
import { type Pem, pemText } from '../tls/pem_option.js';
import { type CertificatePin, checkPin, isPin, parsePin } from '../tls/pin.js';
import { rootsClient, tlsClient } from '../tls/roots.js';
import { TlsStream } from '../tls/tls_stream.js';
import { bareHost } from './relay_address.js';

/** Trust settings. */
export interface Trust {
  /** Name that the certificate must be for; undefined: the URL's host. */
  readonly certName: string | undefined;
  /** Required hash of the certificate; its issuer then does not matter. */
  readonly pin: CertificatePin | undefined;
  /** Trusted authorities; undefined: those of Node, the system and the environment. */
  readonly roots: NativeTlsClient | undefined;
}

/** A verified connection. */
export interface SecureConnection {
  readonly connection: TlsStream;
  /** The relay's key, if the meta certificate contains it: the client may begin without waiting for ServerKey. */
  readonly serverPublicKey: PublicKey | undefined;
}

/**
 * @param caOption - name of the option that `ca` came by
 * @throws DerpError `ERR_DERP_BAD_OPTION` for a pin that is none, `ERR_DERP_CERTIFICATE` for a `ca` without certificates
 */
export function trustOf(
  { certName, ca }: { certName?: string | undefined; ca?: Pem | readonly Pem[] | undefined },
  caOption = 'ca',
): Trust {
  const named = certName === '' ? undefined : certName; // as in a DERP map
  const pinned = named !== undefined && isPin(named);
  return {
    roots: ca === undefined ? undefined : rootsClient(pemText(ca), caOption),
    pin: pinned ? parsePin(named) : undefined,
    certName: pinned ? undefined : named,
  };
}

/**
 * Does the TLS handshake and verifies the relay's certificate. Nothing was sent inside when it resolves. The URL's host is what the relay
 * is asked for (SNI), whatever name its certificate must have.
 * @throws DerpError `ERR_DERP_TLS`, `ERR_DERP_CERTIFICATE`; the socket's own errors as they are
 */
export async function secureConnection(socket: Socket, url: URL, trust: Trust): Promise<SecureConnection> {
  const host = canonicalHost(url.hostname) ?? bareHost(url.hostname);
  const name = trust.certName === undefined ? host : (canonicalHost(trust.certName) ?? trust.certName);
  const session = sessionOf(trust, isIP(host) === 0 ? host : '', trust.pin === undefined ? name : undefined);
  await connected(socket);
  const connection = new TlsStream(socket, session);
  // Ignores later errors of a failed connection.
  connection.on('error', () => {});
  try {
    await secured(connection);
  } catch (error) {
    throw explained(error, name);
  }
  const chain = connection.peerCertificates();
  if (trust.pin !== undefined) checkPin(trust.pin, chain, host);
  return { connection, serverPublicKey: toldKey(connection.version, chain) };
}

function sessionOf({ roots }: Trust, serverName: string, verifyHost: string | undefined): NativeTlsSession {
  const client = roots ?? tlsClient();
  try {
    return client.connect(serverName, verifyHost);
  } catch (cause) {
    const reason = (cause as Error).message;
    const name = JSON.stringify(verifyHost ?? serverName);
    throw new DerpError('ERR_DERP_TLS', `TLS: ${name} is not a valid TLS server name: ${reason}`, { cause });
  }
}

function connected(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('connect', resolve).once('error', reject);
  });
}

function secured(connection: TlsStream): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      connection.off('secure', onSecure).off('error', onError).off('close', onClose);
      act();
    };
    const onSecure = () => settle(resolve);
    const onError = (error: Error) => settle(() => reject(error));
    const onClose = () =>
      onError(new DerpError('ERR_DERP_TLS', 'TLS: the other side closed the connection during the handshake'));
    connection.on('secure', onSecure).on('error', onError).on('close', onClose);
    connection.start();
  });
}

/** OpenSSL's words for what operators run into, and what they can do about it. */
const ADVICE: readonly [words: RegExp, advice: (name: string) => string][] = [
  [
    /self-signed certificate|unable to get (?:local )?issuer|unable to verify the first/,
    () => 'if it is to be trusted, name who issued it by SSL_CERT_FILE, NODE_EXTRA_CA_CERTS or the option for it',
  ],
  [/hostname mismatch|IP address mismatch/, (name) => `it is not for ${JSON.stringify(name)}`],
  [/has expired/, () => 'the relay needs a new one'],
  [/not yet valid/, () => 'is the clock right?'],
  [
    /wrong version number|packet length too long|http request/,
    () => 'this port does not speak TLS; is it a plain one?',
  ],
  [
    /alert internal error|unrecognized name/,
    (name) => `the relay refused; does it have a certificate for ${JSON.stringify(name)}?`,
  ],
];

/** The error with advice, if it is one that advice can be given for. */
function explained(error: unknown, name: string): unknown {
  if (!(error instanceof DerpError)) return error;
  const advice = ADVICE.find(([words]) => words.test(error.message))?.[1];
  return advice === undefined
    ? error
    : new DerpError(error.code, `${error.message}: ${advice(name)}`, { cause: error });
}

/** As Tailscale's client: only over TLS 1.3, where the certificates are not sent in the clear. */
function toldKey(version: string, chain: readonly Uint8Array[]): PublicKey | undefined {
  if (version !== '1.3') return undefined;
  for (const der of chain) {
    const meta = readMetaCertificate(der);
    if (meta !== undefined) return meta.serverKey;
  }
  return undefined;
}
