/** Plain HTTP listeners of the program beside the relay's own. */
import type { Server as HttpServer } from 'node:http';
import type { Logger } from '../log.js';
import { type Address, formatAddress, listenError, listenHost } from './address.js';

export interface HttpListener {
  /** With the port that was taken where it was 0. */
  address: Address;
  close(): Promise<void>;
}

/** Milliseconds between two lines about connections that cannot be accepted. */
const TROUBLE_INTERVAL = 60_000;

/**
 * Listens. A connection that cannot be accepted later (no file descriptors left, for instance) is logged, once a minute at most.
 *
 * @throws {@link StartError} when `server` cannot listen there
 */
export async function listenHttp(server: HttpServer, wanted: Address, logger: Logger): Promise<HttpListener> {
  const host = await listenHost(wanted);
  return new Promise((resolve, reject) => {
    const refuse = (error: Error) => reject(listenError(wanted, error));
    server.once('error', refuse);
    // Without a host Node listens on both families, and on IPv4 alone where there is no IPv6.
    server.listen({ ...(host !== undefined && { host }), port: wanted.port }, () => {
      const address = { ...wanted, port: (server.address() as { port: number }).port };
      server.off('error', refuse);
      server.on('error', acceptTrouble(address, logger));
      resolve({ address, close: () => close(server) });
    });
  });
}

function acceptTrouble(address: Address, logger: Logger): (error: NodeJS.ErrnoException) => void {
  let quietUntil = 0;
  return ({ code, message }) => {
    const now = performance.now();
    if (now < quietUntil) return;
    quietUntil = now + TROUBLE_INTERVAL;
    logger.error({ code }, `derper: accept on ${formatAddress(address)}: ${code ?? message}; the connection is lost`);
  };
}

function close(server: HttpServer): Promise<void> {
  return new Promise((done) => {
    server.close(() => done());
    server.closeAllConnections();
  });
}
