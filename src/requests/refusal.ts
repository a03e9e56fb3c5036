/** Requests that are refused before anybody serves them, and what they are answered: derper's statuses and texts. */
import { STATUS_CODES } from 'node:http';

interface Refusal {
  readonly status: number;
  /** Stands behind the status in the status line and in the body, as in `400 Bad Request: malformed Host header`. */
  readonly detail?: string;
  /** The whole body, where it does not repeat the status. */
  readonly body?: string;
  /** For the log: what is wrong. */
  readonly reason: string;
}

const REFUSALS = {
  not_http: { status: 400, reason: 'not HTTP' },
  request_line: { status: 400, reason: 'malformed request line' },
  method: { status: 400, reason: 'the method is not a token' },
  target: { status: 400, reason: 'malformed request target' },
  http2: { status: 400, body: '', reason: 'HTTP/2 without an agreement on it' },
  version: { status: 505, detail: 'unsupported protocol version', reason: 'not HTTP/1' },
  header_line: { status: 400, reason: 'malformed header line' },
  header_name: { status: 400, detail: 'invalid header name', reason: 'blank in a header name' },
  header_value: { status: 400, reason: 'control character in a header value' },
  no_host: { status: 400, detail: 'missing required Host header', reason: 'no Host header' },
  hosts: { status: 400, reason: 'several Host headers' },
  host: { status: 400, detail: 'malformed Host header', reason: 'malformed Host header' },
  content_length: { status: 400, reason: 'bad Content-Length' },
  transfer_encoding: {
    status: 501,
    body: 'Unsupported transfer encoding',
    reason: 'a Transfer-Encoding other than chunked',
  },
  two_lengths: { status: 400, reason: 'both Transfer-Encoding and Content-Length' },
  expectation: { status: 417, body: '', reason: 'unknown Expect header' },
  head_size: { status: 431, reason: 'request head too long' },
} as const satisfies Record<string, Refusal>;

/** Why a request is refused. */
export type RefusalCode = keyof typeof REFUSALS;

/** A request that must be answered by {@link refusalAnswer}, and its connection closed: the beginning of the next request is unknown. */
export class RefusedRequest extends Error {
  readonly refusal: RefusalCode;
  constructor(refusal: RefusalCode) {
    super(`malformed request: ${REFUSALS[refusal].reason}`);
    this.refusal = refusal;
  }
}

export function isRefusalCode(text: string): text is RefusalCode {
  return Object.hasOwn(REFUSALS, text);
}

/** The whole answer, with which the connection ends. */
export function refusalAnswer(code: RefusalCode): string {
  const { status, detail, body }: Refusal = REFUSALS[code];
  const line = `${status} ${STATUS_CODES[status]}${detail === undefined ? '' : `: ${detail}`}`;
  const text = body ?? line;
  const type = text === '' ? '' : 'Content-Type: text/plain; charset=utf-8\r\n';
  return `HTTP/1.1 ${line}\r\n${type}Content-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`;
}
