/** Plain HTTP listeners of the program beside the relay's own. */
import type { Server as HttpServer } from 'node:http';
import type { Address } from './address.js';

export interface HttpListener {
  /** With the port that was taken where it was 0. */
  address: Address;
  close(): Promise<void>;
}

/** @throws the system's error when `server` cannot listen there */
export function listenHttp(server: HttpServer, { host, port }: Address): Promise<HttpListener> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...(host !== '' && { host }), port }, () => {
      server.off('error', reject);
      resolve({ address: { host, port: (server.address() as { port: number }).port }, close: () => close(server) });
    });
  });
}

function close(server: HttpServer): Promise<void> {
  return new Promise((done) => {
    server.close(() => done());
    server.closeAllConnections();
  });
}
