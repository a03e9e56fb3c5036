/** Plain HTTP listeners of the program beside the relay's own. */
import type { Server as HttpServer } from 'node:http';
import { AcceptTrouble } from '../accept_trouble.js';
import type { Logger } from '../log.js';
import { type Address, formatAddress, listenError, listenHost } from './address.js';

export interface HttpListener {
  /** With the actual port if 0 was asked for. */
  address: Address;
  close(): Promise<void>;
}

/**
 * Listens. If accepting fails later, for instance without free file descriptors, the log has a line at the start and at the end.
 *
 * @throws {@link StartError} when `server` cannot listen there
 */
export async function listenHttp(server: HttpServer, wanted: Address, logger: Logger): Promise<HttpListener> {
  const host = await listenHost(wanted);
  return new Promise((resolve, reject) => {
    const refuse = (error: Error) => reject(listenError(wanted, error));
    server.once('error', refuse);
    // Without a host, Node listens on both families, or on IPv4 only if the machine has no IPv6.
    const at = wanted.sockets
      ? { fd: wanted.sockets[0]!.fd }
      : { ...(host !== undefined && { host }), port: wanted.port };
    server.listen(at, () => {
      const address = { ...wanted, port: (server.address() as { port: number }).port };
      server.off('error', refuse);
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
