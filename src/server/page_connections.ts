/** Hands connections of our listeners that are not DERP upgrades to Node's HTTP servers, with all bytes read so far. */
import type { Server as HttpServer } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ConnectionId, NativeRelay, NativeTlsSession } from '../native.js';
import { setRemoteAddress, type TrustedProxies } from '../proxies.js';
import { readHead } from '../requests/head.js';
import { REFUSE, type Refuser, refuseRequest } from '../requests/last_answer.js';
import type { RefusalCode } from '../requests/refusal.js';
import { TlsStream } from '../tls/tls_stream.js';
import { isWebSocketRequest } from '../websocket/upgrade.js';
import type { WebSockets } from '../websocket/web_sockets.js';
import { refuseDerp } from './refusal.js';
import { clientOf, remoteOf } from './takeover.js';

export class PageConnections {
  readonly #relay: NativeRelay;
  readonly #proxies: TrustedProxies;
  readonly #webSockets: WebSockets | undefined;
  /** Who serves each listener's requests, by the listener's tag. Connections may come after their listener closed. */
  readonly #servers = new Map<number, HttpServer | undefined>();
  #nextTag = 0;
  readonly #sockets = new Set<Socket>();

  /** @param webSockets - takes WebSockets of listeners without a server; undefined: DERP is not served */
  constructor(relay: NativeRelay, webSockets: WebSockets | undefined, proxies: TrustedProxies) {
    this.#relay = relay;
    this.#proxies = proxies;
    this.#webSockets = webSockets;
  }

  /**
   * @param server - undefined: every request is refused
   * @returns the tag of a listener whose requests it serves
   */
  addServer(server: HttpServer | undefined): number {
    const tag = this.#nextTag++;
    this.#servers.set(tag, server);
    return tag;
  }

  /** For a listener that never accepted a connection. */
  removeServer(tag: number): void {
    this.#servers.delete(tag);
  }

  /** @param remote - where it comes from, `ip:port` */
  serve(id: ConnectionId, tag: number, remote: string): void {
    const taken = this.#take(id, remote);
    if (taken === undefined) return;
    const { stream, bytes } = taken;
    const server = this.#servers.get(tag);
    if (server === undefined) {
      this.#serveAlone(stream, bytes);
      return;
    }
    if (bytes.length > 0) stream.unshift(bytes);
    server.emit('connection', stream);
  }

  /** Of a listener without pages: `bytes` begin with a whole request head. */
  #serveAlone(stream: Duplex, bytes: Buffer): void {
    const found = readHead(bytes, 0);
    if (this.#webSockets === undefined || found === undefined || !isWebSocketRequest(found.head)) refuseDerp(stream);
    else
      this.#webSockets.upgrade(
        found.head,
        stream,
        bytes.subarray(found.end),
        clientOf(stream, found.head.headers, this.#proxies),
      );
  }

  /** Answers a malformed request; what was read of the connection is thrown away. */
  refuse(id: ConnectionId, tag: number, code: RefusalCode): void {
    const stream = this.#take(id, '')?.stream;
    if (stream === undefined) return;
    const server = this.#servers.get(tag) as Partial<Refuser> | undefined;
    if (server?.[REFUSE] === undefined) refuseRequest(stream, code);
    else server[REFUSE](stream, code);
  }

  /** Makes a stream of a connection; undefined if it closed meanwhile. */
  #take(id: ConnectionId, remote: string): { stream: Duplex; bytes: Buffer } | undefined {
    let detached: { fd: number; bytes: Buffer; tls?: NativeTlsSession };
    try {
      detached = this.#relay.detach(id);
    } catch {
      return undefined;
    }
    const socket = new Socket({ fd: detached.fd, readable: true, writable: true, allowHalfOpen: true });
    socket.on('error', () => socket.destroy());
    // A PROXY header named the client.
    if (remote !== '' && remote !== remoteOf(socket)) setRemoteAddress(socket, remote);
    // Node's server knows only connections that it accepted itself: these are ours to end.
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    const stream: Duplex = detached.tls === undefined ? socket : new TlsStream(socket, detached.tls);
    stream.on('error', () => stream.destroy());
    return { stream, bytes: detached.bytes };
  }

  /** Ends all that are open. */
  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
