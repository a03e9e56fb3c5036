/** Connections that an embedder brings: upgrades of its HTTP servers, and streams. */
import type { Server as HttpServer, IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type DerpRequest, derpRequest } from '../handshake/request.js';
import type { LimitedLog } from '../log_limit.js';
import { type ConnectionId, HandshakeStart, type NativeRelay } from '../native.js';
import type { TrustedProxies } from '../proxies.js';
import type { RequestHead } from '../requests/head.js';
import { refuseRequest } from '../requests/last_answer.js';
import { headOf, refusalOf } from '../requests/message.js';
import { isWebSocketRequest } from '../websocket/upgrade.js';
import { WebSockets } from '../websocket/web_sockets.js';
import { refuseUpgrade } from './refusal.js';
import { clientOf, connectedPair, takeOver } from './takeover.js';

type OnUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

export class EmbeddedConnections {
  readonly #relay: NativeRelay;
  readonly #log: LimitedLog;
  readonly #proxies: TrustedProxies;
  readonly #servers = new Map<HttpServer, OnUpgrade>();
  /** What waits for the end of a connection. */
  readonly #ends = new Map<ConnectionId, () => void>();
  readonly webSockets: WebSockets;

  constructor(relay: NativeRelay, log: LimitedLog, proxies: TrustedProxies) {
    this.#relay = relay;
    this.#proxies = proxies;
    this.#log = log;
    this.webSockets = new WebSockets({ log, connect: (remote) => this.#connect(remote) });
  }

  /** Takes a server's DERP upgrades from now on. Idempotent. */
  attach(httpServer: HttpServer): void {
    if (this.#servers.has(httpServer)) return;
    const onUpgrade: OnUpgrade = (request, socket, head) => {
      // Node took its own listener away: without one, a reset would end the process.
      socket.on('error', () => socket.destroy());
      const requestHead = headOf(request);
      const derp = derpRequest(requestHead);
      const isWebSocket = isWebSocketRequest(requestHead);
      const refusal = derp.upgrade || isWebSocket ? refusalOf(requestHead) : undefined;
      if (refusal !== undefined) {
        refuseRequest(socket, refusal);
      } else if (isWebSocket) {
        this.webSockets.upgrade(requestHead, socket, head, this.#clientOf(request, requestHead));
      } else if (derp.upgrade) {
        void this.#upgrade(this.#clientOf(request, requestHead), derp, socket, head);
      } else if (httpServer.listenerCount('upgrade') === 1) {
        refuseUpgrade(request, socket);
      }
    };
    this.#servers.set(httpServer, onUpgrade);
    httpServer.on('upgrade', onUpgrade);
  }

  /** Takes no more upgrades. */
  detach(): void {
    for (const [httpServer, onUpgrade] of this.#servers) httpServer.off('upgrade', onUpgrade);
  }

  /** Takes a stream over and resolves when its connection has ended. */
  async admit(
    socket: Duplex,
    head: Uint8Array,
    remote: string,
    start: number = HandshakeStart.DERP,
    notIdeal = false,
  ): Promise<void> {
    try {
      const id = await takeOver(this.#relay, socket, head, remote);
      await this.#begin(id, start, notIdeal);
    } catch (error) {
      // The connection went before a handshake could begin, or there are too many: it is closed, and that is all there is to say.
      this.#log.log('debug', 'embedded', { remote }, `derp: ${remote}: ${(error as Error).message}`);
    }
  }

  /** Resolves when the connection has ended. */
  #begin(id: ConnectionId, start: number, notIdeal: boolean): Promise<void> {
    const ended = new Promise<void>((resolve) => {
      this.#ends.set(id, resolve);
    });
    this.#relay.startHandshake(id, start, notIdeal);
    return ended;
  }

  /** A connection for the bytes of a WebSocket. */
  #connect(remote: string) {
    const { id, end: pair } = connectedPair(this.#relay, Buffer.alloc(0), remote, false);
    return { pair, ended: this.#begin(id, HandshakeStart.DERP, false) };
  }

  /** Tells who waits that a connection has ended. */
  ended(id: ConnectionId): void {
    this.#ends.get(id)?.();
    this.#ends.delete(id);
  }

  /** All have ended. */
  close(): void {
    for (const resolve of this.#ends.values()) resolve();
    this.#ends.clear();
  }

  #clientOf(request: IncomingMessage, { headers }: RequestHead): string {
    return clientOf(request.socket, headers, this.#proxies);
  }

  async #upgrade(remote: string, derp: DerpRequest, socket: Duplex, head: Buffer): Promise<void> {
    const start = derp.fastStart ? HandshakeStart.DERP : HandshakeStart.ANSWER;
    await this.admit(socket, head, remote, start, derp.notIdeal);
  }
}
