/** Heads of HTTP/1 requests: which are well formed, and what they ask for. Takes what derper takes, and refuses what it refuses. */

import { type RefusalCode, RefusedRequest } from './refusal.js';
import { checkTarget } from './target.js';

/**
 * Bytes of a request head; heads of real clients have under 1 KiB. derper allows 1 MiB, which a stranger could fill on every connection.
 */
export const MAX_REQUEST_HEAD = 8 << 10;

export interface RequestHead {
  readonly method: string;
  /** As it was sent. */
  readonly target: string;
  readonly major: number;
  readonly minor: number;
  /** Names as they were sent, each with its value. */
  readonly headers: readonly (readonly [name: string, value: string])[];
}

/** How the body of a request ends. */
export interface Framing {
  readonly chunked: boolean;
  /** Bytes; 0 where `chunked` or without a body. */
  readonly length: number;
}

const LF = 10;
const CR = 13;

const REQUEST_LINE = /^([^ ]+) ([^ ]+) (HTTP\/\d\.\d)$/;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** Tokens, and names with a blank in them: both are refused, with another text. */
const TOKEN_OR_BLANK = /^[!#$%&'*+\-.^_`|~0-9A-Za-z ]+$/;
const VALUE = /^[\t -~\x80-\xff]*$/;
const HOST = /^[!$%&'()*+,\-.0-9:;=A-Z[\]_a-z~]*$/;
const LENGTH = /^\d+$/;

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

/**
 * Whether bytes may be the beginning of a request: of a method, and a request line as soon as there is a line. What else strangers send
 * need not be waited for.
 */
function looksLikeHttp(bytes: Buffer): boolean {
  const lf = bytes.indexOf(LF);
  if (lf !== -1) return REQUEST_LINE.test(withoutCr(bytes.toString('latin1', 0, lf)));
  const start = bytes.toString('latin1', 0, 4);
  const space = start.indexOf(' ');
  return TOKEN.test(space === -1 ? start : start.slice(0, space));
}

/**
 * Reads the head that `bytes` begin with.
 * @param searched - offset up to which an earlier call found no end
 * @returns the head and the offset behind it; undefined: more bytes must come
 * @throws RefusedRequest when it is too long, malformed, or cannot become a head
 */
export function readHead(bytes: Buffer, searched: number): { head: RequestHead; end: number } | undefined {
  const end = findHeadEnd(bytes, searched);
  const tooLong = end === -1 ? bytes.length >= MAX_REQUEST_HEAD : end > MAX_REQUEST_HEAD;
  if (tooLong) refuse('head_size');
  if (end === -1) return looksLikeHttp(bytes) ? undefined : refuse('not_http');
  return { head: parseHead(bytes.subarray(0, end)), end };
}

/**
 * Reads a whole head, the empty line included.
 * @throws RefusedRequest when it is malformed in any way
 */
export function parseHead(bytes: Buffer): RequestHead {
  const [requestLine = '', ...lines] = bytes.toString('latin1').split('\n').map(withoutCr);
  const [, method = '', target = '', version = ''] = REQUEST_LINE.exec(requestLine) ?? refuse('request_line');
  if (!TOKEN.test(method)) refuse('method');
  if (!checkTarget(method, target)) refuse('target');
  const head = { method, target, major: Number(version[5]), minor: Number(version[7]), headers: parseHeaders(lines) };
  checkHead(head);
  return head;
}

function withoutCr(line: string): string {
  return line.endsWith('\r') ? line.slice(0, -1) : line;
}

/** Lines up to the empty one; a line that begins with a blank goes on with the one before. */
function parseHeaders(lines: string[]): [name: string, value: string][] {
  const headers: [name: string, value: string][] = [];
  for (const line of lines) {
    if (line === '') break;
    const last = headers.at(-1);
    if (line.startsWith(' ') || line.startsWith('\t')) {
      if (last === undefined) refuse('header_line');
      last[1] = trim(`${last[1]} ${trim(line)}`);
      continue;
    }
    const colon = line.indexOf(':');
    if (colon < 0) refuse('header_line');
    headers.push([line.slice(0, colon), trim(line.slice(colon + 1))]);
  }
  return headers;
}

/** Without blanks around; a value may hold other white space, which is refused. */
function trim(text: string): string {
  // A regular expression for the end would look at a run of blanks inside once for each of them.
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text[start])) start++;
  while (end > start && isBlank(text[end - 1])) end--;
  return text.slice(start, end);
}

function isBlank(character: string | undefined): boolean {
  return character === ' ' || character === '\t';
}

/**
 * What a parser of requests may pass over, and what must be refused so that no reader takes one request for two.
 * @throws RefusedRequest
 */
export function checkHead(head: RequestHead): void {
  const { major, minor, headers } = head;
  for (const [name, value] of headers) {
    if (!TOKEN_OR_BLANK.test(name)) refuse('header_line');
    if (!VALUE.test(value)) refuse('header_value');
  }
  const hosts = headersNamed(head, 'host');
  if (hosts.length > 1) refuse('hosts');
  checkFraming(head);
  if (isHttp2Preface(head)) refuse(headers.length === 0 ? 'http2' : 'no_host');
  if (major !== 1) refuse('version');
  const mayLackHost = minor === 0 || head.method === 'CONNECT';
  if (hosts.length === 0 && !mayLackHost) refuse('no_host');
  if (!HOST.test(hosts[0] ?? '')) refuse('host');
  if (headers.some(([name]) => !TOKEN.test(name))) refuse('header_name');
  const expect = headerOf(head, 'expect') ?? '';
  if (expect !== '' && !expectsContinue(head)) refuse('expectation');
}

function checkFraming(head: RequestHead): void {
  const lengths = headersNamed(head, 'content-length');
  const encodings = headersNamed(head, 'transfer-encoding');
  // HTTP/1.0 knows no encodings; derper passes over them there.
  const encoded = encodings.length > 0 && isAtLeast11(head);
  if (encoded && (encodings.length > 1 || encodings[0]!.toLowerCase() !== 'chunked')) refuse('transfer_encoding');
  if (lengths.some((length) => length !== lengths[0] || !LENGTH.test(length))) refuse('content_length');
  if (lengths.length > 0 && BigInt(lengths[0]!) > MAX_LENGTH) refuse('content_length');
  if (lengths.length > 0 && encodings.length > 0) refuse('two_lengths');
}

/** What a signed 64-bit integer holds. */
const MAX_LENGTH = 2n ** 63n - 1n;

function isAtLeast11({ major, minor }: RequestHead): boolean {
  return major > 1 || (major === 1 && minor >= 1);
}

/** How HTTP/2 begins where nothing was agreed on. */
function isHttp2Preface({ method, target, major, minor }: RequestHead): boolean {
  return method === 'PRI' && target === '*' && major === 2 && minor === 0;
}

export function framingOf(head: RequestHead): Framing {
  const chunked = isAtLeast11(head) && headerOf(head, 'transfer-encoding') !== undefined;
  return { chunked, length: Number(headerOf(head, 'content-length') ?? 0) };
}

/** Whether the client waits for `100 Continue` before it sends the body. */
export function expectsContinue(head: RequestHead): boolean {
  return listsToken([headerOf(head, 'expect') ?? ''], '100-continue');
}

/**
 * Whether another request may follow on the connection. In HTTP/1.0 it must be asked for, and nothing may follow a Transfer-Encoding,
 * which such a client's body may have or not.
 */
export function mayKeepAlive(head: RequestHead): boolean {
  const connection = headersNamed(head, 'connection');
  if (head.method === 'CONNECT' || listsToken(connection, 'close')) return false;
  if (isAtLeast11(head)) return head.major === 1;
  return listsToken(connection, 'keep-alive') && headerOf(head, 'transfer-encoding') === undefined;
}

/** Whether a header of several values, each a list, holds a token, in any case. */
export function listsToken(values: readonly string[], token: string): boolean {
  return values.some((value) =>
    value
      .toLowerCase()
      .split(/[ \t,]+/)
      .includes(token),
  );
}

/** The first value of a header. */
export function headerOf(head: RequestHead, name: string): string | undefined {
  return head.headers.find(([other]) => other.toLowerCase() === name)?.[1];
}

/** All values of a header. */
export function headersNamed(head: RequestHead, name: string): string[] {
  return head.headers.filter(([other]) => other.toLowerCase() === name).map(([, value]) => value);
}

function refuse(code: RefusalCode): never {
  throw new RefusedRequest(code);
}
