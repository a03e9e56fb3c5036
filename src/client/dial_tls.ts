/** TLS on a dialled connection: who the relay must be, and what its meta certificate tells. */
import type { Socket } from 'node:net';
import { isIP } from 'node:net';
import { DerpError } from '../errors.js';
import type { NativeTlsClient } from '../native.js';
import type { PublicKey } from '../protocol/key.js';
import { readMetaCertificate } from '../tls/meta_certificate.js';
import { type CertificatePin, checkPin, isPin, parsePin } from '../tls/pin.js';
import { rootsClient, tlsClient } from '../tls/roots.js';
import { TlsStream } from '../tls/tls_stream.js';
import { bareHost } from './dial.js';

/** Whom to believe. */
export interface Trust {
  /** Name that the certificate must be for; undefined: the URL's host. */
  readonly certName: string | undefined;
  /** Hash that the certificate must have; nothing else then matters of who issued it. */
  readonly pin: CertificatePin | undefined;
  /** PEM of roots in place of everybody else's. */
  readonly ca: string | undefined;
}

/** A connection on which both sides are who they should be. */
export interface SecureConnection {
  readonly connection: TlsStream;
  /** The relay's key, if its meta certificate told it: the client may begin without waiting for ServerKey. */
  readonly serverPublicKey: PublicKey | undefined;
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` for a pin that is none */
export function trustOf({ certName, ca }: { certName?: string | undefined; ca?: string | undefined }): Trust {
  const pinned = certName !== undefined && isPin(certName);
  return { ca, pin: pinned ? parsePin(certName) : undefined, certName: pinned ? undefined : certName };
}

/**
 * Does the TLS handshake and verifies the relay's certificate. Nothing was sent inside when it resolves.
 * @throws DerpError `ERR_DERP_TLS`, `ERR_DERP_CERTIFICATE`; the socket's own errors as they are
 */
export async function secureConnection(socket: Socket, url: URL, trust: Trust): Promise<SecureConnection> {
  const host = bareHost(url.hostname);
  const name = trust.certName ?? host;
  const session = clientOf(trust).connect(isIP(name) === 0 ? name : '', trust.pin === undefined ? name : '');
  await connected(socket);
  const connection = new TlsStream(socket, session);
  // Whatever the connection still has to say after it failed, nobody is left to hear it.
  connection.on('error', () => {});
  await secured(connection);
  const chain = connection.peerCertificates();
  if (trust.pin !== undefined) checkPin(trust.pin, chain, host);
  return { connection, serverPublicKey: toldKey(connection.version, chain) };
}

function clientOf({ ca }: Trust): NativeTlsClient {
  return ca === undefined ? tlsClient() : rootsClient(ca);
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

/** As the reference: only over TLS 1.3, where the certificates are not sent in the clear. */
function toldKey(version: string, chain: readonly Uint8Array[]): PublicKey | undefined {
  if (version !== '1.3') return undefined;
  for (const der of chain) {
    const meta = readMetaCertificate(der);
    if (meta !== undefined) return meta.serverKey;
  }
  return undefined;
}
