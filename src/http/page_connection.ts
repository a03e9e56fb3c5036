/**
 * One connection of a page server: it reads requests one after the other, by the same rules as the relay's own handshakes. Node's
 * parser has other rules. If two parsers disagree on the end of a request, a stranger can hide one request in another.
 */
import { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { BodySkipper } from '../requests/body.js';
import {
  expectsContinue,
  framingOf,
  MAX_REQUEST_HEAD,
  mayKeepAlive,
  type RequestHead,
  readHead,
} from '../requests/head.js';
import { closeAfter } from '../requests/last_answer.js';
import { type RefusalCode, RefusedRequest } from '../requests/refusal.js';

/** Bytes that a connection may send ahead while its request is answered. */
const READ_AHEAD = MAX_REQUEST_HEAD;
/** Empty lines that old clients send behind the body of a POST, in bytes. */
const STRAY_LINES = /^[\r\n]{1,4}/;

export interface PageConnectionOptions {
  /** Whether a request takes the connection over. */
  isUpgrade: (head: RequestHead) => boolean;
  /** Takes the connection over, with the bytes behind the request. */
  upgrade: (request: IncomingMessage, rest: Buffer) => void;
  /** Answers a request. */
  serve: (request: IncomingMessage, response: ServerResponse) => void;
  /** Ends the connection of a malformed request. */
  refuse: (code: RefusalCode) => void;
  /** An answer was written completely. */
  onAnswered: () => void;
}

export class PageConnection {
  readonly #socket: Socket;
  readonly #options: PageConnectionOptions;
  /** Received bytes not used yet. */
  #bytes: Buffer = Buffer.alloc(0);
  /** Bytes already searched for the end of a head. */
  #searched = 0;
  /** The request that is being read or answered. */
  #head: RequestHead | undefined;
  #body: BodySkipper | undefined;
  #answering = false;
  /** Reading has ended. */
  #over = false;
  #afterPost = false;

  constructor(socket: Socket, options: PageConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    socket.on('data', this.#receive).on('end', this.#end);
    socket.on('error', () => socket.destroy());
  }

  /** Whether no request has begun. */
  get isIdle(): boolean {
    return !this.#answering && this.#head === undefined && this.#bytes.length === 0;
  }

  readonly #receive = (chunk: Buffer): void => {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    this.#advance();
    if (this.#answering && this.#bytes.length >= READ_AHEAD) this.#socket.pause();
  };

  /** The client sends nothing more; answers may still be in progress. */
  readonly #end = (): void => {
    if (!this.#answering) this.#finish();
  };

  #advance(): void {
    try {
      while (!this.#answering && !this.#over && this.#step());
    } catch (error) {
      if (!(error instanceof RefusedRequest)) throw error;
      this.#refuse(error.refusal);
    }
  }

  /** Whether there was enough to go on with. */
  #step(): boolean {
    if (this.#head === undefined) {
      const head = this.#readHead();
      if (head === undefined) return false;
      if (this.#options.isUpgrade(head)) {
        this.#leave();
        this.#options.upgrade(messageOf(head, this.#socket), this.#bytes);
        return false;
      }
      this.#head = head;
      this.#body = new BodySkipper(framingOf(head));
    }
    const body = this.#body!;
    // No `100 Continue`: the server does not want the body.
    const unsent = expectsContinue(this.#head) && body.state === 'more';
    if (!unsent) this.#bytes = this.#bytes.subarray(body.feed(this.#bytes));
    if (body.state === 'more' && !unsent) return false;
    this.#answer(this.#head, !unsent && body.state === 'done' && mayKeepAlive(this.#head));
    return true;
  }

  #readHead(): RequestHead | undefined {
    if (this.#afterPost)
      this.#bytes = this.#bytes.subarray(STRAY_LINES.exec(this.#bytes.toString('latin1', 0, 4))?.[0].length ?? 0);
    if (this.#bytes.length === 0) return undefined;
    this.#afterPost = false;
    const found = readHead(this.#bytes, this.#searched);
    if (found === undefined) {
      this.#searched = this.#bytes.length;
      return undefined;
    }
    this.#bytes = this.#bytes.subarray(found.end);
    this.#searched = 0;
    this.#afterPost = found.head.method === 'POST';
    return found.head;
  }

  #answer(head: RequestHead, keepAlive: boolean): void {
    const request = messageOf(head, this.#socket);
    const response = new ServerResponse(request);
    response.shouldKeepAlive = keepAlive;
    response.assignSocket(this.#socket);
    response.once('finish', () => this.#answered(response, keepAlive && mayFollow(request, response)));
    this.#answering = true;
    this.#options.serve(request, response);
  }

  #answered(response: ServerResponse, keepAlive: boolean): void {
    response.detachSocket(this.#socket);
    response.destroyed = true;
    response.emit('close');
    this.#options.onAnswered();
    this.#answering = false;
    this.#head = undefined;
    if (!keepAlive) {
      this.#close('');
      return;
    }
    this.#advance();
    if (this.#answering || this.#over) return;
    if (this.#socket.readableEnded) this.#finish();
    else this.#socket.resume();
  }

  #refuse(code: RefusalCode): void {
    this.#leave();
    this.#options.refuse(code);
  }

  #close(lastWords: string): void {
    this.#leave();
    closeAfter(this.#socket, lastWords);
  }

  /** No answer is in progress, and no request can follow. */
  #finish(): void {
    this.#leave();
    this.#socket.end();
  }

  #leave(): void {
    this.#over = true;
    this.#socket.off('data', this.#receive).off('end', this.#end);
  }
}

/** Whether the client can find the end of the answer and expects more answers on this connection. */
function mayFollow(request: IncomingMessage, response: ServerResponse): boolean {
  if (/\bclose\b/i.test(String(response.getHeader('Connection') ?? ''))) return false;
  if (request.httpVersionMinor > 0) return true;
  return response.hasHeader('Content-Length') || response.statusCode === 204;
}

/** The request as listeners of an `http.Server` know it, without its body. */
function messageOf(head: RequestHead, socket: Socket): IncomingMessage {
  const request = new IncomingMessage(socket);
  request.method = head.method;
  request.url = head.target;
  request.httpVersionMajor = head.major;
  request.httpVersionMinor = head.minor;
  request.httpVersion = `${head.major}.${head.minor}`;
  request.rawHeaders = head.headers.flat();
  request.headers = {};
  // The first of repeated headers counts, as for DERP upgrades; Host and lengths are never repeated.
  for (const [name, value] of head.headers) request.headers[name.toLowerCase()] ??= value;
  request.complete = true;
  request.push(null);
  return request;
}
