/**
 * One WebSocket and one end of a socketpair, whose other end is a connection of the relay like any other: messages become bytes,
 * bytes become messages, and neither side is read while the other takes nothing.
 */
import type { Socket } from 'node:net';
import { type RawData, WebSocket } from 'ws';

/** Bytes that wait for a client's socket before the relay's output is not read any more; what was read last comes on top. */
const MAX_UNSENT = 64 << 10;

/** Milliseconds that a client has to take what it is owed and to answer a close frame, as derper's. */
export const CLOSE_TIMEOUT = 5_000;

/** Close codes that the relay sends by itself; those of malformed frames come from `ws`. */
export const CloseCode = {
  /** The relay ended the connection, for whatever reason. */
  NORMAL: 1000,
  /** A text message. */
  UNSUPPORTED: 1003,
  /** The subprotocol is not `derp`. */
  POLICY: 1008,
} as const;

/** Why a client's WebSocket was closed: names of counters. */
export const WEBSOCKET_FAULTS = [
  /** The request could not become a WebSocket. */
  'bad_upgrade',
  /** No offer of the subprotocol `derp`. */
  'bad_subprotocol',
  /** A message was too large or came in too many parts. */
  'message_size',
  /** A text message. */
  'text_message',
  /** A frame was malformed. */
  'protocol',
] as const;

export type WebSocketFault = (typeof WEBSOCKET_FAULTS)[number];

export interface BridgeOptions {
  webSocket: WebSocket;
  /** The socketpair's end. */
  pair: Socket;
  /** Resolves when the relay's connection has ended. */
  ended: Promise<void>;
  /** The client broke a rule of WebSocket. */
  onFault: (fault: WebSocketFault, message: string) => void;
  /** The close frame is under way, the client's answer is not there yet. */
  onClosing: () => void;
}

export class WebSocketBridge {
  readonly #webSocket: WebSocket;
  readonly #pair: Socket;
  readonly #options: BridgeOptions;
  #deadline: NodeJS.Timeout | undefined;

  constructor(options: BridgeOptions) {
    const { webSocket, pair, ended } = options;
    this.#options = options;
    this.#webSocket = webSocket;
    this.#pair = pair;
    webSocket
      .on('message', (data, isBinary) => this.#receive(data, isBinary))
      .on('error', (error) => this.#failed(error))
      .once('close', () => this.#gone());
    pair
      .on('data', (chunk: Buffer) => this.#send(chunk))
      .on('drain', () => webSocket.resume())
      // An error is followed by 'close'.
      .on('error', () => undefined)
      .once('end', () => this.close())
      .once('close', () => this.close());
    // What the relay sent last may still wait for a slow client, within a deadline.
    void ended.then(() => this.#setDeadline());
  }

  /** Ends the connection to the relay, and says so to the client. */
  close(code: number = CloseCode.NORMAL, reason = ''): void {
    this.#pair.destroySoon();
    if (this.#webSocket.readyState === WebSocket.CLOSED) return;
    this.#setDeadline();
    // The client's answer must be read.
    this.#webSocket.resume();
    this.#webSocket.close(code, reason);
    this.#options.onClosing();
  }

  /** Ends both without a word. */
  terminate(): void {
    this.#webSocket.terminate();
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (this.#webSocket.readyState !== WebSocket.OPEN) return;
    if (!isBinary) {
      this.#options.onFault('text_message', 'a text message, DERP needs binary ones');
      this.close(CloseCode.UNSUPPORTED, 'unexpected frame type: text, expected binary');
      return;
    }
    // Empty messages hold no DERP. The pair's stream would queue them, and never be full of them.
    if ((data as Buffer).length === 0) return;
    if (this.#pair.writable && !this.#pair.write(data as Buffer)) this.#webSocket.pause();
  }

  #send(chunk: Buffer): void {
    if (this.#webSocket.readyState !== WebSocket.OPEN) return;
    this.#webSocket.send(chunk, { binary: true }, this.#sent);
    if (this.#webSocket.bufferedAmount >= MAX_UNSENT) this.#pair.pause();
  }

  readonly #sent = (): void => {
    if (this.#pair.isPaused() && this.#webSocket.bufferedAmount < MAX_UNSENT) this.#pair.resume();
  };

  /** `ws` has begun to close with the code that fits. */
  #failed(error: Error & { code?: string }): void {
    const { code } = error;
    if (code?.startsWith('WS_ERR_')) {
      const isSize = /TOO_MANY|MESSAGE_LENGTH/.test(code);
      this.#options.onFault(isSize ? 'message_size' : 'protocol', error.message);
    }
    this.#pair.destroySoon();
    this.#setDeadline();
    this.#options.onClosing();
  }

  #setDeadline(): void {
    if (this.#webSocket.readyState === WebSocket.CLOSED) return;
    this.#deadline ??= setTimeout(() => this.terminate(), CLOSE_TIMEOUT);
  }

  #gone(): void {
    clearTimeout(this.#deadline);
    // What the client sent is still the relay's, if it reads on; what the relay sends now is dropped.
    this.#pair.resume();
    this.#pair.destroySoon();
    if (this.#pair.destroyed) return;
    const deadline = setTimeout(() => this.#pair.destroy(), CLOSE_TIMEOUT);
    this.#pair.once('close', () => clearTimeout(deadline));
  }
}
