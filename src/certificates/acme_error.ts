/** What went wrong between us and an ACME server, in words an operator can act on. */
import { DerpError } from '../errors.js';

/** Characters of a server's text that are kept. */
const MAX_DETAIL = 400;

/** Maximum subproblems in a message. */
const MAX_SUBPROBLEMS = 3;

const PROBLEM_PREFIX = 'urn:ietf:params:acme:error:';

export interface AcmeErrorOptions extends ErrorOptions {
  /** HTTP status of the answer. */
  status?: number | undefined;
  /** Problem type of RFC 8555, section 6.7, without its prefix. */
  type?: string | undefined;
  /** Milliseconds that the server asks to wait before the next attempt. */
  retryAfter?: number | undefined;
}

/** `ERR_DERP_ACME`: a certificate could not be issued. */
export class AcmeError extends DerpError {
  readonly status: number | undefined;
  readonly type: string | undefined;
  readonly retryAfter: number | undefined;

  constructor(message: string, { status, type, retryAfter, cause }: AcmeErrorOptions = {}) {
    super('ERR_DERP_ACME', message, { cause });
    this.status = status;
    this.type = type;
    this.retryAfter = retryAfter;
  }

  /** The same with what we were doing in front. */
  during(step: string): AcmeError {
    const { status, type, retryAfter } = this;
    return new AcmeError(`${step}: ${this.message}`, { status, type, retryAfter, cause: this });
  }
}

/** A problem document (RFC 7807), none of whose members can be relied on. */
export interface Problem {
  type?: unknown;
  detail?: unknown;
  subproblems?: unknown;
}

/** What to do about some kinds of problem. */
const ADVICE = new Map([
  [
    'externalAccountRequired',
    'this server wants an account binding: -certmode gcp with -acme-eab-kid, -acme-eab-key and -acme-email',
  ],
  [
    'accountDoesNotExist',
    'the server does not know the account of the key in -certdir; it is registered anew next time',
  ],
  ['caa', 'a CAA record of the domain forbids this certificate authority'],
  [
    'connection',
    'the server must reach this machine from outside, on port 443 for tls-alpn-01 and port 80 for http-01',
  ],
  ['dns', 'the name needs an A or AAAA record that resolves to this machine'],
]);

/** `rateLimited: too many certificates ...; <advice>` */
export function describeProblem({ type, detail, subproblems }: Problem): string {
  const kind = problemType(type);
  const parts = [`${kind}: ${typeof detail === 'string' ? printable(detail) : 'no details given'}`];
  if (Array.isArray(subproblems)) parts.push(...subproblems.slice(0, MAX_SUBPROBLEMS).map(describeSubproblem));
  const advice = ADVICE.get(kind);
  if (advice !== undefined) parts.push(advice);
  return parts.join('; ');
}

/** The kind of a problem, `serverInternal` of `urn:ietf:params:acme:error:serverInternal`. */
export function problemType(type: unknown): string {
  if (typeof type !== 'string' || type === '') return 'error without type';
  return printable(type.startsWith(PROBLEM_PREFIX) ? type.slice(PROBLEM_PREFIX.length) : type);
}

/** What a stranger wrote, on one line and not too long. */
export function printable(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ').trim();
  return line.length > MAX_DETAIL ? `${line.slice(0, MAX_DETAIL)}...` : line;
}

function describeSubproblem(problem: unknown): string {
  const { identifier, type, detail } = (problem ?? {}) as Problem & { identifier?: { value?: unknown } };
  const about = typeof identifier?.value === 'string' ? `${printable(identifier.value)}: ` : '';
  return `${about}${problemType(type)}: ${typeof detail === 'string' ? printable(detail) : 'no details given'}`;
}
