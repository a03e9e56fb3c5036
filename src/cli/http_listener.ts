/** Plain HTTP listeners of the program beside the relay's own. */
import type { Server as HttpServer } from 'node:http';
import { AcceptTrouble } from '../accept_trouble.js';
import type { Logger } from '../log.js';
import { type Address, formatAddress } from './address.js';

export interface HttpListener {
  /** With the port that was taken where it was 0. */
  address: Address;
  close(): Promise<void>;
}

/**
 * Listens. When connections cannot be accepted later (no file descriptors left, for instance), the log tells of the begin and the end.
 *
 * @throws the system's error when `server` cannot listen there
 */
export function listenHttp(server: HttpServer, { host, port }: Address, logger: Logger): Promise<HttpListener> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...(host !== '' && { host }), port }, () => {
      const address = { host, port: (server.address() as { port: number }).port };
      server.off('error', reject);
      const trouble = new AcceptTrouble(logger, `accept on ${formatAddress(address)}`, 'connections are lost');
      server.on('error', ({ code, message }: NodeJS.ErrnoException) => trouble.failed(code ?? message));
      server.on('close', () => trouble.close());
      resolve({ address, close: () => close(server) });
    });
  });
}

function close(server: HttpServer): Promise<void> {
  return new Promise((done) => {
    server.close(() => done());
    server.closeAllConnections();
  });
}
