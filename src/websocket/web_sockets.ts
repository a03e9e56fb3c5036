/** DERP over WebSocket: upgrades on `/derp` with the subprotocol `derp`, which the relay then serves as it serves any other client. */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import type { LimitedLog } from '../log_limit.js';
import { FRAME_HEADER_LENGTH } from '../protocol/frame.js';
import { MAX_CLIENT_INFO_SIZE } from '../protocol/info.js';
import { headerOf, type RequestHead } from '../requests/head.js';
import { closeAfter } from '../requests/last_answer.js';
import { CLOSE_TIMEOUT, CloseCode, WEBSOCKET_FAULTS, WebSocketBridge, type WebSocketFault } from './bridge.js';
import { chosenSubprotocol, faultAnswer, faultOf, SUBPROTOCOL } from './upgrade.js';

/** Bytes of a message: the largest frame of a client, a ClientInfo, fits into one. */
const MAX_MESSAGE = FRAME_HEADER_LENGTH + MAX_CLIENT_INFO_SIZE;
/** Fragments of a message. Browsers and Go send fragments of at least 4 KiB; each costs about 200 bytes beside what it holds. */
const MAX_FRAGMENTS = 1_024;
/** Reads in which a frame may come; a frame of the largest size in segments of 100 bytes needs 2,600. */
const MAX_BUFFERED_CHUNKS = 4_096;
/** WebSockets that wait for a client's close frame at once; beyond, the one that waits longest is closed. */
const MAX_CLOSING = 1_024;

export interface WebSocketsOptions {
  log: LimitedLog;
  /** Makes a connection of the relay, its handshake begun; throws when there are too many. */
  connect: (remote: string) => { pair: Socket; ended: Promise<void> };
}

export class WebSockets {
  readonly #options: WebSocketsOptions;
  readonly #server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE,
    maxFragments: MAX_FRAGMENTS,
    maxBufferedChunks: MAX_BUFFERED_CHUNKS,
  });
  readonly #bridges = new Map<WebSocket, WebSocketBridge>();
  /** Those that wait for a close frame, in the order in which they began to. */
  readonly #closing = new Set<WebSocket>();
  readonly #faults = new Map<WebSocketFault, number>(WEBSOCKET_FAULTS.map((fault) => [fault, 0]));
  #accepts = 0;

  constructor(options: WebSocketsOptions) {
    this.#options = options;
  }

  /** Upgrades with the right subprotocol since start. */
  get accepts(): number {
    return this.#accepts;
  }

  /** What clients did wrong since start, by name. */
  get faults(): Record<string, number> {
    return Object.fromEntries(this.#faults);
  }

  /**
   * Answers a request that asks for a WebSocket.
   * @param head - its head, well formed
   * @param rest - bytes that were read behind it
   */
  upgrade(head: RequestHead, socket: Duplex, rest: Buffer, remote: string): void {
    const fault = faultOf(head);
    if (fault !== undefined) {
      this.#onFault(remote, 'bad_upgrade', `failed to accept WebSocket connection: ${fault.text}`);
      closeAfter(socket, faultAnswer(fault));
      return;
    }
    const subprotocol = chosenSubprotocol(head);
    this.#server.handleUpgrade(cleanRequest(head, subprotocol), socket, rest, (webSocket) => {
      webSocket.once('close', () => {
        this.#bridges.delete(webSocket);
        this.#closing.delete(webSocket);
      });
      if (subprotocol === SUBPROTOCOL) this.#accept(webSocket, remote);
      else this.#refuse(webSocket, remote);
      // Reading the request paused the socket.
      socket.resume();
    });
  }

  /** Says to all clients that the relay is going. */
  close(): void {
    for (const bridge of this.#bridges.values()) bridge.close();
  }

  #accept(webSocket: WebSocket, remote: string): void {
    this.#accepts++;
    let connection: { pair: Socket; ended: Promise<void> };
    try {
      connection = this.#options.connect(remote);
    } catch (error) {
      this.#options.log.log('debug', 'websocket', { remote }, `derp: ${remote}: ${(error as Error).message}`);
      webSocket.on('error', () => undefined);
      webSocket.terminate();
      return;
    }
    const bridge = new WebSocketBridge({
      webSocket,
      ...connection,
      onFault: (fault, message) => this.#onFault(remote, fault, message),
      onClosing: () => this.#onClosing(webSocket),
    });
    this.#bridges.set(webSocket, bridge);
  }

  #refuse(webSocket: WebSocket, remote: string): void {
    this.#onFault(remote, 'bad_subprotocol', 'no offer of the subprotocol "derp"');
    webSocket.on('error', () => undefined);
    const deadline = setTimeout(() => webSocket.terminate(), CLOSE_TIMEOUT);
    webSocket.once('close', () => clearTimeout(deadline));
    webSocket.close(CloseCode.POLICY, 'client must speak the derp subprotocol');
    this.#onClosing(webSocket);
  }

  #onFault(remote: string, fault: WebSocketFault, message: string): void {
    this.#faults.set(fault, this.#faults.get(fault)! + 1);
    const text = fault === 'bad_upgrade' ? `websocket.Accept: ${message}` : `derp: ${remote}: websocket: ${message}`;
    this.#options.log.log('debug', 'websocket', { remote, fault }, text);
  }

  #onClosing(webSocket: WebSocket): void {
    this.#closing.add(webSocket);
    if (this.#closing.size <= MAX_CLOSING) return;
    const [oldest] = this.#closing;
    this.#closing.delete(oldest!);
    oldest!.terminate();
  }
}

/** The request as `ws` expects it; `ws` checks it again by its own rules. */
function cleanRequest(head: RequestHead, subprotocol: string | undefined): IncomingMessage {
  const headers = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': headerOf(head, 'sec-websocket-key'),
    ...(subprotocol !== undefined && { 'sec-websocket-protocol': subprotocol }),
  };
  return { method: 'GET', url: head.target, headers } as unknown as IncomingMessage;
}
