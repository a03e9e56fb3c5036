/** Which requests are WebSockets, and what is wrong with those that cannot become one: derper's checks, in its order, with its answers. */
import { STATUS_CODES } from 'node:http';
import { isDerpPath } from '../handshake/request.js';
import { headerOf, headersNamed, listsToken, type RequestHead } from '../requests/head.js';

/** The subprotocol of clients that carry DERP in WebSocket messages. */
export const SUBPROTOCOL = 'derp';

/** Bytes of the key that a client sends, before base64. */
const KEY_LENGTH = 16;

/** Why a request cannot become a WebSocket. */
export interface UpgradeFault {
  readonly status: 400 | 403 | 405 | 426;
  /** For the client and the log. */
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Whether a request on `/derp` asks for a WebSocket. Without `derp` in the subprotocols it is plain DERP of a very old client. */
export function isWebSocketRequest(head: RequestHead): boolean {
  return (
    head.method !== 'CONNECT' &&
    isDerpPath(head.target) &&
    headerOf(head, 'upgrade')?.toLowerCase() === 'websocket' &&
    (headerOf(head, 'sec-websocket-protocol') ?? '').includes(SUBPROTOCOL)
  );
}

/** Finds the first fault of a request that asks for a WebSocket; `undefined`: it can become one. */
export function faultOf(head: RequestHead): UpgradeFault | undefined {
  if (head.major === 1 && head.minor === 0) {
    return violation(426, 'handshake request must be at least HTTP/1.1: "HTTP/1.0"');
  }
  if (!listsToken(headersNamed(head, 'connection'), 'upgrade')) {
    const connection = quoted(headerOf(head, 'connection') ?? '');
    return {
      ...violation(426, `Connection header ${connection} does not contain Upgrade`),
      headers: { Connection: 'close, Upgrade', Upgrade: 'websocket' },
    };
  }
  if (head.method !== 'GET') {
    return violation(405, `handshake request method is not GET but ${quoted(head.method)}`);
  }
  const version = headerOf(head, 'sec-websocket-version') ?? '';
  if (version !== '13') {
    const text = `unsupported WebSocket protocol version (only 13 is supported): ${quoted(version)}`;
    return { status: 400, text, headers: { 'Sec-WebSocket-Version': '13' } };
  }
  return keyFault(headersNamed(head, 'sec-websocket-key')) ?? originFault(headerOf(head, 'origin') ?? '');
}

function keyFault([key, ...others]: string[]): UpgradeFault | undefined {
  if (key === undefined) return violation(400, 'missing Sec-WebSocket-Key');
  if (others.length > 0) return violation(400, 'multiple Sec-WebSocket-Key headers');
  const isBase64 = /^[A-Za-z0-9+/]{22}==$/.test(key);
  if (isBase64 && Buffer.from(key, 'base64').length === KEY_LENGTH) return undefined;
  return violation(400, `invalid Sec-WebSocket-Key ${quoted(key)}, must be a 16 byte base64 encoded string`);
}

/** Any page may connect, but its origin must be a URL. */
function originFault(origin: string): UpgradeFault | undefined {
  const wrong = urlFault(origin);
  if (wrong === undefined) return undefined;
  return { status: 403, text: `failed to parse Origin header ${quoted(origin)}: parse ${quoted(origin)}: ${wrong}` };
}

/** What Go finds wrong with a URL, in its words; the rest passes, as in Go. */
function urlFault(url: string): string | undefined {
  if (url.startsWith(':')) return 'missing protocol scheme';
  const [badEscape] = /%(?![0-9A-Fa-f]{2}).{0,2}/.exec(url) ?? [];
  if (badEscape !== undefined) return `invalid URL escape ${quoted(badEscape)}`;
  const authority = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#]*)/.exec(url)?.[1] ?? '';
  const port = authority.slice(authority.lastIndexOf(':'));
  return port.startsWith(':') && !/^:\d*$|\]$/.test(port) ? `invalid port ${quoted(port)} after host` : undefined;
}

/** The offer that is taken: the first that is `derp` in any case, as it is written. */
export function chosenSubprotocol(head: RequestHead): string | undefined {
  return headersNamed(head, 'sec-websocket-protocol')
    .flatMap((value) => value.split(','))
    .map((offer) => offer.trim())
    .find((offer) => offer.toLowerCase() === SUBPROTOCOL);
}

/** The whole answer to a request with a fault, with which the connection ends. */
export function faultAnswer({ status, text, headers = {} }: UpgradeFault): string {
  const all = {
    'Content-Type': 'text/plain; charset=utf-8',
    'X-Content-Type-Options': 'nosniff',
    'Content-Length': Buffer.byteLength(text) + 1,
    Connection: 'close',
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${text}\n`;
}

function violation(status: UpgradeFault['status'], text: string): UpgradeFault {
  return { status, text: `WebSocket protocol violation: ${text}` };
}

function quoted(text: string): string {
  return JSON.stringify(text);
}
