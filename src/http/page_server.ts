import { type IncomingMessage, Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type PagesOptions, pages } from './pages.js';

/** Milliseconds from accept to the end of a request's head, for writing an answer, and between two requests: as the reference. */
const CONNECTION_DEADLINE = 30_000;
/** Bytes of a request head; Node answers 431 beyond. Heads of real clients have under 1 KiB. */
const MAX_HEAD = 8 * 1024;
/** Connections that may wait for pages at once; more are closed. A waiting one costs about 10 kB. */
const MAX_CONNECTIONS = 4_096;

/**
 * Makes an `http.Server` that serves {@link pages}. It may listen itself, or be given connections by `emit('connection', socket)`;
 * its bounds hold in both cases, which Node's own timeouts do not: those run in a listening server only.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` when `home` is none of its values
 */
export function createPageServer(options: PagesOptions = {}): Server {
  const server = new PageServer({ maxHeaderSize: MAX_HEAD });
  server.on('request', pages(options));
  return server;
}

class PageServer extends Server {
  /** Every open connection with the timer that ends it. */
  readonly #deadlines = new Map<Socket, NodeJS.Timeout>();

  constructor(options: { maxHeaderSize: number }) {
    super({ ...options, keepAliveTimeout: CONNECTION_DEADLINE, headersTimeout: CONNECTION_DEADLINE });
    // Before Node's own listener: a connection that is one too many is never parsed.
    this.prependListener('connection', (socket: Socket) => this.#watch(socket));
    this.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.#deadlines.get(request.socket)?.refresh();
      response.once('finish', () => this.#deadlines.get(request.socket)?.refresh());
    });
  }

  #watch(socket: Socket): void {
    if (this.#deadlines.size >= MAX_CONNECTIONS) {
      socket.destroy();
      return;
    }
    this.#deadlines.set(
      socket,
      setTimeout(() => socket.destroy(), CONNECTION_DEADLINE),
    );
    socket.once('close', () => this.#forget(socket));
  }

  #forget(socket: Socket): void {
    clearTimeout(this.#deadlines.get(socket));
    this.#deadlines.delete(socket);
  }

  /** An upgraded connection is its new owner's. (A listener would not do: any makes Node treat the upgrade as handled.) */
  override emit(event: string, ...args: unknown[]): boolean {
    if (event === 'upgrade' && this.listenerCount('upgrade') > 0) this.#forget(args[1] as Socket);
    return super.emit(event, ...args);
  }

  /** Node's knows only the connections that the server accepted itself. */
  override closeAllConnections(): void {
    super.closeAllConnections();
    for (const socket of this.#deadlines.keys()) socket.destroy();
  }
}
