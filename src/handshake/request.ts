/** The request head of a connection that may become a DERP client. */
import { HTTPParser } from 'http-parser-js';

/** What the relay needs to know of a request. */
export interface DerpRequest {
  /** Whether it upgrades to DERP on `/derp`. */
  upgrade: boolean;
  /** Whether the client wants no HTTP answer at all. */
  fastStart: boolean;
  /** Whether the client says that this is not its ideal node. */
  notIdeal: boolean;
}

const CR = 13;
const LF = 10;

/**
 * Finds the end of a request head, an empty line.
 * @param from - offset up to which an earlier call found none
 * @returns offset behind the empty line, or -1
 */
export function findHeadEnd(bytes: Buffer, from: number): number {
  // Three bytes back: the end may straddle the two reads.
  for (let at = bytes.indexOf(LF, Math.max(0, from - 3)); at !== -1; at = bytes.indexOf(LF, at + 1)) {
    const next = bytes[at + 1] === CR ? at + 2 : at + 1;
    if (bytes[next] === LF) return next + 1;
  }
  return -1;
}

/** What the parser would pass over and the reference refuses: a zero byte, a header line without a colon or a name. */
const MALFORMED = /\0|\n(?!$|\r?\n|[^\s:]+:|[ \t])/;

/**
 * Reads a whole request head, as laxly as the reference: the method, the version and `Connection` do not matter.
 * @throws Error of the HTTP parser when it is no HTTP
 */
export function parseRequest(head: Buffer): DerpRequest {
  if (MALFORMED.test(head.toString('latin1'))) throw new Error('a header line is malformed');
  let request: DerpRequest | undefined;
  const parser = new HTTPParser(HTTPParser.REQUEST);
  parser[HTTPParser.kOnHeadersComplete] = ({ url, headers }) => {
    request = readRequest(url, headers);
  };
  const result = parser.execute(head, 0, head.length);
  if (result instanceof Error) throw result;
  if (request === undefined) throw new Error('the request line is missing');
  return request;
}

function readRequest(url: string, headers: string[]): DerpRequest {
  const first = new Map<string, string>();
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    if (!first.has(name)) first.set(name, headers[i + 1]!);
  }
  return {
    upgrade: isDerpPath(url) && isDerpUpgrade(first.get('upgrade'), first.get('sec-websocket-protocol')),
    fastStart: first.get('derp-fast-start') === '1',
    notIdeal: (first.get('ideal-node') ?? '') !== '',
  };
}

/** Query strings never matter. */
export function isDerpPath(url: string): boolean {
  const query = url.indexOf('?');
  return (query === -1 ? url : url.slice(0, query)) === '/derp';
}

/** Very old clients say `websocket` and mean DERP; those that mean WebSocket offer a subprotocol with `derp` in it. */
export function isDerpUpgrade(upgrade: string | undefined, protocols: string | undefined): boolean {
  const value = upgrade?.toLowerCase();
  return value === 'derp' || (value === 'websocket' && !(protocols ?? '').includes('derp'));
}
