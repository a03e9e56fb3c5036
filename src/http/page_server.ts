import { type IncomingMessage, type RequestListener, Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { isDerpPath, isKnownUpgrade } from '../handshake/request.js';
import { checkRanges, NO_PROXIES, TrustedProxies } from '../proxies.js';
import { headerOf, type RequestHead } from '../requests/head.js';
import { REFUSE, type Refuser, refuseRequest } from '../requests/last_answer.js';
import type { RefusalCode } from '../requests/refusal.js';
import { noteClient } from './client_address.js';
import { ConnectionPlaces, type PlaceBounds } from './connection_places.js';
import { PageConnection } from './page_connection.js';
import { type PagesOptions, pages } from './pages.js';
import { afterProxyHeader } from './proxy_header.js';

/** Milliseconds from accept to the end of a request, for writing an answer, and between two requests, as in derper. */
const CONNECTION_DEADLINE = 30_000;
/** Milliseconds for the first byte of a connection that the server accepts itself: clients speak first and at once. */
const FIRST_BYTE_DEADLINE = 3_000;
/** A waiting connection costs about 10 kB. One source has as many places as handshakes of a relay; browsers and proxies keep a few. */
const PLACES: PlaceBounds = { max: 4_096, maxPerSource: 256, grace: 100 };

/**
 * Returns an `http.Server` that serves {@link pages}. Call its `listen()`, or give it connections by `emit('connection', socket)`;
 * its bounds hold in both cases. It reads requests as derper does, not with Node's parser: any method is served, heads have at most
 * 8 KiB, and bodies are passed over. Node's options and events for parsing (`maxHeaderSize`, `clientError`, `checkContinue`) do nothing.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION`
 */
export function createPageServer(options: PageServerOptions = {}): Server {
  const { trustProxy, ...shown } = options;
  if (trustProxy !== undefined) checkRanges(trustProxy, 'trustProxy');
  return boundedServer(pages(shown), { hidden: options.home === 'none', proxies: new TrustedProxies(trustProxy) });
}

/** Options of {@link createPageServer}. */
export interface PageServerOptions extends PagesOptions {
  /** Proxies that may tell the client's address, as {@link ServerOptions.trustProxy}. Default: none. */
  trustProxy?: readonly string[];
}

/** How a {@link boundedServer} differs from that of {@link createPageServer}. */
export interface BoundedServerOptions extends Partial<PlaceBounds> {
  /** Closes the connection of a malformed request without an answer. Default: false. */
  hidden?: boolean;
  /** Those that may tell a client's address. Default: none. */
  proxies?: TrustedProxies;
  /** Whether a connection may come in that the server accepted itself. Default: always. */
  mayAccept?: () => boolean;
}

/** A server with the bounds of {@link createPageServer} for other pages. */
export function boundedServer(
  listener: RequestListener,
  { hidden = false, proxies = NO_PROXIES, mayAccept = () => true, ...bounds }: BoundedServerOptions = {},
): Server {
  const server = new PageServer({ ...PLACES, ...bounds }, { hidden, proxies, mayAccept });
  server.on('request', listener);
  return server;
}

type Behaviour = Required<Pick<BoundedServerOptions, 'hidden' | 'proxies' | 'mayAccept'>>;

/** The state of an open connection. */
interface Open {
  readonly connection: PageConnection;
  /** Ends it. */
  deadline: NodeJS.Timeout;
}

class PageServer extends Server implements Refuser {
  readonly #behaviour: Behaviour;
  readonly #open = new Map<Socket, Open>();
  readonly #places: ConnectionPlaces;

  constructor(bounds: PlaceBounds, behaviour: Behaviour) {
    super();
    this.#behaviour = behaviour;
    this.#places = new ConnectionPlaces(bounds);
    // Node's parser never sees a connection.
    this.removeAllListeners('connection');
    this.on('connection', (socket: Socket) => this.#meet(socket));
  }

  /** What a relay's listener gives away it has accepted, with bytes that it read behind a PROXY header. */
  #meet(socket: Socket): void {
    const { proxies, mayAccept } = this.#behaviour;
    const isGiven = socket.readableLength > 0;
    if (!isGiven && !mayAccept()) socket.destroy();
    else if (isGiven || !proxies.has(socket.remoteAddress ?? '')) this.#begin(socket);
    else afterProxyHeader(socket, FIRST_BYTE_DEADLINE, () => this.#begin(socket));
  }

  #begin(socket: Socket): void {
    if (!this.#places.enter(socket)) {
      socket.destroy();
      return;
    }
    const firstByte = setTimeout(() => {
      if (socket.bytesRead === 0) socket.destroy();
      else this.#setDeadline(socket, CONNECTION_DEADLINE - FIRST_BYTE_DEADLINE);
    }, FIRST_BYTE_DEADLINE);
    // A relay's listener hands over a connection together with the bytes it read.
    const hasBytes = socket.readableLength > 0;
    const connection = new PageConnection(socket, {
      isUpgrade: (head) => this.#isUpgrade(head),
      upgrade: (request, rest) => this.#upgrade(request, rest),
      serve: (request, response) => this.#serve(request, response),
      refuse: (code) => this[REFUSE](socket, code),
      onAnswered: () => this.#onAnswered(socket),
    });
    this.#open.set(socket, { connection, deadline: firstByte });
    if (hasBytes) this.#setDeadline(socket, CONNECTION_DEADLINE);
    socket.once('close', () => this.#forget(socket));
  }

  /** Does nothing for a forgotten connection. */
  #setDeadline(socket: Socket, milliseconds: number): void {
    const open = this.#open.get(socket);
    if (open === undefined) return;
    clearTimeout(open.deadline);
    open.deadline = setTimeout(() => socket.destroy(), milliseconds);
  }

  #forget(socket: Socket): void {
    clearTimeout(this.#open.get(socket)?.deadline);
    this.#open.delete(socket);
    this.#places.leave(socket);
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    this.#setDeadline(request.socket, CONNECTION_DEADLINE);
    this.#places.busy(request.socket);
    noteClient(request, this.#behaviour.proxies);
    this.emit('request', request, response);
  }

  #onAnswered(socket: Socket): void {
    this.#setDeadline(socket, CONNECTION_DEADLINE);
    this.#places.idle(socket);
  }

  /** A listener for upgrades to DERP gets the connection. Other upgrades get a page as answer. */
  #isUpgrade(head: RequestHead): boolean {
    if (head.method === 'CONNECT' || this.listenerCount('upgrade') === 0) return false;
    return isDerpPath(head.target) && isKnownUpgrade(headerOf(head, 'upgrade'));
  }

  #upgrade(request: IncomingMessage, rest: Buffer): void {
    this.#forget(request.socket);
    request.socket.pause();
    this.emit('upgrade', request, request.socket, rest);
  }

  [REFUSE](socket: Duplex, code: RefusalCode): void {
    if (this.#behaviour.hidden) socket.destroy();
    else refuseRequest(socket, code);
  }

  /** Node's two know only the connections that its own parser reads. */
  override closeIdleConnections(): void {
    for (const [socket, { connection }] of this.#open) if (connection.isIdle) socket.destroy();
  }

  override closeAllConnections(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }
}
