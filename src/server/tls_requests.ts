/** HTTP requests that pages answer over TLS, by version, as derper counts them. */
import type { Server as HttpServer, IncomingMessage, ServerResponse } from 'node:http';
import { TlsStream } from '../tls/tls_stream.js';

/** Requests by TLS version. */
export type ByVersion = Record<'1.2' | '1.3', number>;

export class TlsRequests {
  /** Since start. */
  readonly total: ByVersion = { '1.2': 0, '1.3': 0 };
  /** Being answered now. */
  readonly active: ByVersion = { '1.2': 0, '1.3': 0 };
  readonly #servers = new Set<HttpServer>();

  /** Counts the requests of a server from now on. Idempotent. */
  watch(server: HttpServer): void {
    if (this.#servers.has(server)) return;
    this.#servers.add(server);
    // First of all: a page that shows the figures is among the requests that are being answered.
    server.prependListener('request', this.#onRequest);
  }

  close(): void {
    for (const server of this.#servers) server.off('request', this.#onRequest);
    this.#servers.clear();
  }

  readonly #onRequest = ({ socket }: IncomingMessage, response: ServerResponse) => {
    const stream: unknown = socket;
    if (!(stream instanceof TlsStream)) return;
    const version = stream.version as keyof ByVersion;
    this.total[version]++;
    this.active[version]++;
    response.once('close', () => this.active[version]--);
  };
}
