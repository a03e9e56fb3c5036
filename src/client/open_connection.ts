import type { Socket } from 'node:net';
import { DerpError } from '../errors.js';
import { dial, displayUrl } from './dial.js';
import { type UpgradeRequest, upgrade } from './upgrade.js';

/** Where a relay is, and how long it may take to get there. */
export interface Dialling extends UpgradeRequest {
  /** Host to connect to instead of the URL's; the port stays the URL's. */
  readonly dialHost?: string | undefined;
  /** Milliseconds for DNS, TCP, upgrade and handshake together. */
  readonly timeout: number;
  /** Ends the attempt; its reason is what the attempt then throws. */
  readonly signal: AbortSignal;
}

/**
 * Dials, upgrades and gives the connection to `handshake`, all within one deadline, which ends the socket under whatever step is
 * running. The connection is `handshake`'s when that resolves, and closed in every other case.
 * @throws DerpError `ERR_DERP_CONNECT`, `ERR_DERP_TIMEOUT`, `ERR_DERP_HTTP_STATUS` and what `handshake` throws
 */
export async function openConnection<T>(
  dialling: Dialling,
  handshake: (socket: Socket, head: Buffer) => Promise<T>,
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
    const head = await upgrade(socket, dialling);
    return await handshake(socket, head);
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
  if (cause instanceof DerpError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  const reason = message === '' ? code : message;
  return new DerpError('ERR_DERP_CONNECT', `cannot connect to ${displayUrl(url)}: ${reason}`, { cause });
}
