import { type IncomingMessage, type RequestListener, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { ConnectionPlaces, type PlaceBounds } from './connection_places.js';
import { isKnownUpgrade, type PagesOptions, pages } from './pages.js';

/** Milliseconds from accept to the end of a request's head, for writing an answer, and between two requests: as the reference. */
const CONNECTION_DEADLINE = 30_000;
/** Bytes of a request head; Node answers 431 beyond. Heads of real clients have under 1 KiB. */
const MAX_HEAD = 8 * 1024;
/** Milliseconds for the first byte of a connection that the server accepts itself: clients speak first and at once. */
const FIRST_BYTE_DEADLINE = 3_000;
/** A waiting connection costs about 10 kB. One source has as many places as handshakes of a relay; browsers and proxies keep a few. */
const PLACES: PlaceBounds = { max: 4_096, maxPerSource: 256, grace: 100 };

/**
 * Makes an `http.Server` that serves {@link pages}. It may listen itself, or be given connections by `emit('connection', socket)`;
 * its bounds hold in both cases, which Node's own timeouts do not: those run in a listening server only.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION`
 */
export function createPageServer(options: PagesOptions = {}): Server {
  return boundedServer(pages(options));
}

/** A server with the bounds of {@link createPageServer} for other pages. */
export function boundedServer(listener: RequestListener, bounds: Partial<PlaceBounds> = {}): Server {
  const server = new PageServer({ maxHeaderSize: MAX_HEAD }, { ...PLACES, ...bounds });
  server.on('request', listener);
  return server;
}

class PageServer extends Server {
  /** Every open connection with the timer that ends it. */
  readonly #deadlines = new Map<Socket, NodeJS.Timeout>();
  readonly #places: ConnectionPlaces;

  constructor(options: { maxHeaderSize: number }, bounds: PlaceBounds) {
    super({ ...options, keepAliveTimeout: CONNECTION_DEADLINE, headersTimeout: CONNECTION_DEADLINE });
    this.#places = new ConnectionPlaces(bounds);
    // Before Node's own listener: a connection that is one too many is never parsed.
    this.prependListener('connection', (socket: Socket) => this.#watch(socket));
    this.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const { socket } = request;
      this.#setDeadline(socket, CONNECTION_DEADLINE);
      this.#places.busy(socket);
      response.once('finish', () => {
        this.#setDeadline(socket, CONNECTION_DEADLINE);
        this.#places.idle(socket);
      });
    });
  }

  #watch(socket: Socket): void {
    if (!this.#places.enter(socket)) {
      socket.destroy();
      return;
    }
    // A relay's listener gives a connection away with what it read.
    const hasBytes = socket.readableLength > 0;
    const firstByte = setTimeout(() => {
      if (socket.bytesRead === 0) socket.destroy();
      else this.#setDeadline(socket, CONNECTION_DEADLINE - FIRST_BYTE_DEADLINE);
    }, FIRST_BYTE_DEADLINE);
    this.#deadlines.set(socket, firstByte);
    if (hasBytes) this.#setDeadline(socket, CONNECTION_DEADLINE);
    socket.once('close', () => this.#forget(socket));
  }

  /** Nothing for a connection that is forgotten. */
  #setDeadline(socket: Socket, milliseconds: number): void {
    const timer = this.#deadlines.get(socket);
    if (timer === undefined) return;
    clearTimeout(timer);
    this.#deadlines.set(
      socket,
      setTimeout(() => socket.destroy(), milliseconds),
    );
  }

  #forget(socket: Socket): void {
    clearTimeout(this.#deadlines.get(socket));
    this.#deadlines.delete(socket);
    this.#places.leave(socket);
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
