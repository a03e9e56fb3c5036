import { type IncomingMessage, type RequestListener, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { isKnownUpgrade, type PagesOptions, pages } from './pages.js';

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
  return boundedServer(pages(options));
}

/** A server with the bounds of {@link createPageServer} for other pages. */
export function boundedServer(listener: RequestListener): Server {
  const server = new PageServer({ maxHeaderSize: MAX_HEAD });
  server.on('request', listener);
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

  /**
   * Node gives every upgrade to the listeners of 'upgrade', as soon as there is one. Here only those to DERP are meant for them, and
   * the connection is theirs then; to the others the answer is a page, as if nobody had asked for an upgrade.
   */
  override emit(event: string, ...args: unknown[]): boolean {
    if (event !== 'upgrade') return super.emit(event, ...args);
    const [request, socket] = args as [IncomingMessage, Socket];
    if (/^\/derp(?:\?|$)/.test(request.url ?? '') && isKnownUpgrade(request.headers.upgrade)) {
      this.#forget(socket);
      return super.emit(event, ...args);
    }
    return this.#answer(request, socket);
  }

  /** Answers a request that Node's parser has let go of; the connection ends with it. */
  #answer(request: IncomingMessage, socket: Socket): boolean {
    // Node takes its own listener away with an upgrade, and an error that nobody listens for ends the process.
    socket.on('error', () => socket.destroy());
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(socket);
    response.once('finish', () => socket.destroySoon());
    return this.emit('request', request, response);
  }

  /** Node's knows only the connections that the server accepted itself. */
  override closeAllConnections(): void {
    super.closeAllConnections();
    for (const socket of this.#deadlines.keys()) socket.destroy();
  }
}
