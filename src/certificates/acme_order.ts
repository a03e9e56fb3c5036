/** One order at an ACME server, from the wish to the certificate (RFC 8555, section 7.4). */
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CertificateText } from '../tls/tls_context.js';
import { AcmeError, describeProblem, type Problem, printable } from './acme_error.js';
import type { AcmeSession, Reply } from './acme_session.js';

/** Milliseconds between looks at something that the server works on, where it does not say; grows by half each time. */
const FIRST_POLL = 250;
const MAX_POLL = 10_000;

/** Longest common name that X.509 allows; a longer host is in the certificate as alternative name only. */
const MAX_COMMON_NAME = 64;

export type ChallengeType = 'tls-alpn-01' | 'http-01';

export interface Wish {
  /** DNS name or IP address. */
  name: string;
  keyType: 'ec' | 'rsa';
  /** Profile of certificate, where the server has several. */
  profile?: string;
  /** What we can answer; the first is tried first, the next with a new order. */
  challenges: ChallengeType[];
}

/** Makes a challenge answerable; what it resolves to takes that back. */
export type AnswerChallenge = (
  type: ChallengeType,
  token: string,
  keyAuthorization: string,
) => Promise<() => Promise<void>>;

interface Order {
  status: string;
  authorizations?: string[];
  finalize: string;
  certificate?: string;
  error?: Problem;
}

interface Authorization {
  status: string;
  challenges?: { type: string; url: string; token: string; error?: Problem }[];
}

/** An order that may be finalized. */
interface ReadyOrder {
  url: string;
  finalize: string;
}

/**
 * Orders one certificate with a new key.
 *
 * @throws {@link AcmeError} with the reasons of all challenges that failed; the session's signal ends it too
 */
export async function orderCertificate(
  session: AcmeSession,
  wish: Wish,
  answer: AnswerChallenge,
): Promise<CertificateText> {
  const { crypto } = await import('acme-client');
  const order = await authorizedOrder(session, wish, answer);
  const [key, csr] = await crypto.createCsr(
    {
      altNames: [wish.name],
      ...(isIP(wish.name) === 0 && wish.name.length <= MAX_COMMON_NAME && { commonName: wish.name }),
    },
    wish.keyType === 'rsa' ? await crypto.createPrivateRsaKey() : await crypto.createPrivateEcdsaKey(),
  );
  await session.post('finalizing the order', order.finalize, { csr: crypto.getPemBodyAsB64u(csr) });
  const { certificate } = await settled<Order>(session, 'waiting for the certificate', order.url, ['valid']);
  if (certificate === undefined) throw new AcmeError('the order is valid, but has no certificate');
  const { data: cert } = await session.post<string>('fetching the certificate', certificate);
  return { cert, key: key.toString() };
}

/** Tries each kind of challenge, each with a new order, since a failed one spoils its order. */
async function authorizedOrder(session: AcmeSession, wish: Wish, answer: AnswerChallenge): Promise<ReadyOrder> {
  const failures: AcmeError[] = [];
  for (const type of wish.challenges) {
    const order = await newOrder(session, wish).catch((error: AcmeError) => {
      // Why the challenges before failed is what an operator can mend.
      throw error instanceof AcmeError && failures.length > 0 ? together([...failures, error.during(type)]) : error;
    });
    try {
      await authorize(session, order, type, answer);
      await settled<Order>(session, 'waiting for the order', order.url, ['ready', 'valid']);
      return order;
    } catch (error) {
      if (!(error instanceof AcmeError)) throw error;
      failures.push(error.during(type));
      await abandon(session, order.authorizations);
    }
  }
  throw together(failures);
}

/** One error for all; its kind is the last one's. */
function together(failures: AcmeError[]): AcmeError {
  const retryAfter = Math.max(0, ...failures.map((failure) => failure.retryAfter ?? 0));
  const { status, type } = failures.at(-1) ?? {};
  return new AcmeError(failures.map(({ message }) => message).join('; '), {
    status,
    type,
    retryAfter,
    cause: failures[0],
  });
}

async function newOrder(
  session: AcmeSession,
  { name, profile }: Wish,
): Promise<ReadyOrder & { authorizations: string[] }> {
  const { data, location } = await session.ask<Order>('new order', await session.resource('newOrder'), {
    identifiers: [{ type: isIP(name) === 0 ? 'dns' : 'ip', value: name }],
    ...(profile !== undefined && { profile }),
  });
  if (location === undefined) throw new AcmeError('new order: the server does not say where the order is');
  return { url: location, finalize: data.finalize, authorizations: data.authorizations ?? [] };
}

async function authorize(
  session: AcmeSession,
  order: { authorizations: string[] },
  type: ChallengeType,
  answer: AnswerChallenge,
): Promise<void> {
  for (const url of order.authorizations) {
    const { data: authorization } = await session.ask<Authorization>('reading the authorization', url);
    if (authorization.status !== 'pending') continue;
    const challenge = authorization.challenges?.find((offered) => offered.type === type);
    if (challenge === undefined) throw new AcmeError('the server does not offer it for this name');
    const takeBack = await answer(type, challenge.token, await session.keyAuthorization(challenge.token));
    try {
      await session.post('accepting the challenge', challenge.url, {});
      await settled<Authorization>(session, 'waiting for the validation', url, ['valid']);
    } finally {
      await takeBack();
    }
  }
}

/** Waits until what is at `url` has one of the statuses; statuses that cannot change to one of them are errors. */
async function settled<T extends Order | Authorization>(
  session: AcmeSession,
  step: string,
  url: string,
  wanted: string[],
): Promise<T> {
  for (let delay = FIRST_POLL; ; delay = Math.min(delay * 1.5, MAX_POLL)) {
    const { data, retryAfter }: Reply<T> = await session.ask<T>(step, url);
    if (wanted.includes(data.status)) return data;
    if (!['pending', 'ready', 'processing'].includes(data.status)) throw failureIn(data);
    await sleep(Math.min(retryAfter || delay, MAX_POLL), undefined, { signal: session.signal, ref: false });
  }
}

function failureIn(data: Order | Authorization): AcmeError {
  const problem = 'finalize' in data ? data.error : data.challenges?.find(({ error }) => error !== undefined)?.error;
  if (problem === undefined) return new AcmeError(`it became ${printable(String(data.status))} without a reason`);
  return new AcmeError(describeProblem(problem));
}

/** Gives back authorizations that still wait, since servers limit how many may. */
async function abandon(session: AcmeSession, urls: string[]): Promise<void> {
  for (const url of urls) {
    try {
      const { data } = await session.ask<Authorization>('reading the authorization', url);
      if (data.status === 'pending')
        await session.post('giving the authorization back', url, { status: 'deactivated' });
    } catch (error) {
      // The reason why the order failed is worth more; a server drops these by itself in time.
      if (!(error instanceof AcmeError)) throw error;
    }
  }
}
