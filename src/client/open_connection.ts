import type { Duplex } from 'node:stream';
import { DerpError, systemDetail } from '../errors.js';
import type { PublicKey } from '../protocol/key.js';
import { dial, displayUrl } from './dial.js';
import { secureConnection, type Trust } from './dial_tls.js';
import { type UpgradeRequest, upgrade } from './upgrade.js';

/** Where a relay is, and how long it may take to get there. */
export interface Dialling extends Omit<UpgradeRequest, 'early'> {
  /** Trusted certificates for TLS. */
  readonly trust: Trust;
  /** Makes the ClientInfo frame for a relay whose key is known from TLS; it is sent together with the request. */
  readonly clientInfo: (serverPublicKey: PublicKey) => Uint8Array;
  /** Host to connect to instead of the URL's; the port stays the URL's. */
  readonly dialHost?: string | undefined;
  /** Milliseconds for DNS, TCP, TLS, upgrade and handshake together. */
  readonly timeout: number;
  /** Ends the attempt; its reason is what the attempt then throws. */
  readonly signal: AbortSignal;
}

/** What is known of a connection when its handshake begins. */
export interface Opened {
  /** Bytes of DERP that were already read. */
  readonly head: Buffer;
  /** The relay's key if known from TLS; ClientInfo is then already sent. */
  readonly serverPublicKey: PublicKey | undefined;
}

/**
 * Dials, upgrades and gives the connection to `handshake`, all within one deadline, which ends the socket under whatever step is
 * running. The connection is `handshake`'s when that resolves, and closed in every other case.
 * @throws DerpError `ERR_DERP_CONNECT`, `ERR_DERP_TIMEOUT`, `ERR_DERP_TLS`, `ERR_DERP_CERTIFICATE`, `ERR_DERP_HTTP_STATUS` and what `handshake` throws
 */
export async function openConnection<T>(
  dialling: Dialling,
  handshake: (connection: Duplex, opened: Opened) => Promise<T>,
): Promise<T> {
  const { url, timeout, signal } = dialling;
  signal.throwIfAborted();
  const socket = dial(url, dialling.dialHost);
  const abort = () => socket.destroy(signal.reason);
  signal.addEventListener('abort', abort);
  const deadline = setTimeout(() => {
    socket.destroy(new DerpError('ERR_DERP_TIMEOUT', `no DERP connection to ${displayUrl(url)} within ${timeout} ms`));
  }, timeout);
  try {
    const { connection, serverPublicKey } =
      url.protocol === 'https:'
        ? await secureConnection(socket, url, dialling.trust)
        : { connection: socket, serverPublicKey: undefined };
    const early = serverPublicKey === undefined ? undefined : dialling.clientInfo(serverPublicKey);
    const head = await upgrade(connection, { ...dialling, early });
    return await handshake(connection, { head, serverPublicKey });
  } catch (cause) {
    // Whatever the socket still has to say is about an attempt that already failed.
    socket.on('error', () => {}).destroy();
    signal.throwIfAborted();
    throw connectError(url, cause);
  } finally {
    clearTimeout(deadline);
    signal.removeEventListener('abort', abort);
  }
}

function connectError(url: URL, cause: unknown): DerpError {
  if (cause instanceof DerpError) {
    const { code, message } = cause;
    const where = displayUrl(url);
    return message.includes(where) ? cause : new DerpError(code, `${where}: ${message}`, { cause });
  }
  const { code, message } = cause as NodeJS.ErrnoException;
  const reason = message === '' ? code : message;
  return new DerpError('ERR_DERP_CONNECT', `cannot connect to ${displayUrl(url)}: ${reason}`, {
    ...systemDetail(cause),
    cause,
  });
}
