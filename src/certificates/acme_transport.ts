/** HTTP to an ACME server: each request has a deadline, each answer a bound, each failure a reason. */
import { Agent } from 'node:https';
import { createSecureContext } from 'node:tls';
import type { axios as AcmeAxios } from 'acme-client';
import { rootsPem } from '../tls/roots.js';
import { AcmeError, describeProblem, type Problem, printable, problemType } from './acme_error.js';

/** Milliseconds for one request. */
const REQUEST_TIMEOUT = 30_000;

/** Bytes of an answer; a chain has about ten thousand. */
const MAX_ANSWER = 1024 * 1024;

const USER_AGENT = 'derplane (acme-client)';

/** The part of an answer that the ACME library and we read. */
export interface AcmeAnswer {
  status: number;
  /** JSON as its value, anything else as text. */
  data: unknown;
  headers: Record<string, string | undefined>;
}

export interface AcmeTransport {
  /** Makes one request. The signature is that of the ACME library's own. */
  request(url: string, method: string, options?: { data?: unknown }): Promise<AcmeAnswer>;
  /** Lets go of its connections. */
  close(): void;
}

/**
 * A transport that rejects with {@link AcmeError} for everything but success, and bad nonces, which the ACME library answers itself.
 *
 * @param axios - the library's HTTP client, whose retries (which wait as long as a server says) are left out
 * @param signal - ends requests under way
 * @param timeout - milliseconds for one request
 */
export function createTransport(
  axios: typeof AcmeAxios,
  signal: AbortSignal,
  env: NodeJS.ProcessEnv,
  timeout = REQUEST_TIMEOUT,
): AcmeTransport {
  const agent = new Agent({ keepAlive: true, secureContext: createSecureContext({ ca: rootsPem(env) }) });
  const client = axios.create({
    adapter: 'http',
    httpsAgent: agent,
    maxContentLength: MAX_ANSWER,
    headers: { 'User-Agent': USER_AGENT, 'Content-Type': 'application/jose+json' },
    validateStatus: null,
  });
  const request = async (url: string, method: string, { data }: { data?: unknown } = {}): Promise<AcmeAnswer> => {
    const deadline = AbortSignal.timeout(timeout);
    let answer: AcmeAnswer;
    try {
      answer = (await client.request({ url, method, data, signal: AbortSignal.any([signal, deadline]) })) as AcmeAnswer;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw deadline.aborted ? silent(url, timeout) : unreachable(url, error);
    }
    const failure = failureOf(url, answer);
    if (failure === undefined || failure.type === 'badNonce') return answer;
    throw failure;
  };
  return { request, close: () => agent.destroy() };
}

/** What an answer says went wrong, or `undefined`. */
export function failureOf(url: string, { status, data, headers }: AcmeAnswer): AcmeError | undefined {
  if (status < 400) return undefined;
  const retryAfter = parseRetryAfter(headers['retry-after']);
  const problem = (typeof data === 'object' && data !== null ? data : {}) as Problem;
  if (problem.type === undefined && problem.detail === undefined) {
    const text = typeof data === 'string' && data !== '' ? `: ${printable(data.slice(0, 1_000))}` : '';
    return new AcmeError(`${hostOf(url)} answered HTTP status ${status}${text}`, { status, retryAfter });
  }
  return new AcmeError(describeProblem(problem), { status, retryAfter, type: problemType(problem.type) });
}

/** Milliseconds of a Retry-After header, seconds or a date; 0 for none or one that cannot be read. */
export function parseRetryAfter(header: string | undefined): number {
  if (header === undefined) return 0;
  const milliseconds = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isNaN(milliseconds) ? 0 : Math.max(milliseconds, 0);
}

/** What the system says, in words. */
const REASONS = new Map([
  ['ENOTFOUND', 'its name has no address in DNS'],
  ['EAI_AGAIN', 'DNS does not answer'],
  ['ECONNREFUSED', 'the connection was refused'],
  ['ECONNRESET', 'the connection broke'],
  ['EPIPE', 'the connection broke'],
  ['EHOSTUNREACH', 'there is no route to it'],
  ['ENETUNREACH', 'there is no route to it'],
  ['ETIMEDOUT', 'it does not answer'],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'its certificate is for another name'],
]);

const UNTRUSTED = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
]);

const WRONG_TIME = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID']);

function silent(url: string, timeout: number): AcmeError {
  return new AcmeError(`${hostOf(url)}: no answer within ${timeout / 1000} s`);
}

function unreachable(url: string, error: unknown): AcmeError {
  if (error instanceof AcmeError) return error;
  const { code = '', message } = error as NodeJS.ErrnoException;
  return new AcmeError(`${hostOf(url)}: ${reasonFor(code, message)}`, { cause: error });
}

function reasonFor(code: string, message: string): string {
  if (UNTRUSTED.has(code)) {
    return `its certificate comes from an authority that is not trusted (${code}); name a file with its root in SSL_CERT_FILE`;
  }
  if (WRONG_TIME.has(code)) {
    const time = new Date().toISOString();
    return `its certificate is not valid now (${code}); this machine's clock says ${time}: is that right?`;
  }
  if (/maxContentLength/.test(message)) return `it answered more than ${MAX_ANSWER} bytes`;
  return REASONS.get(code) ?? printable(message || code);
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : printable(url);
}
