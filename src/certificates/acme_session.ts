/** An account at an ACME server, and signed requests in its name. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'acme-client';
import { AcmeError } from './acme_error.js';
import { type AcmeAnswer, type AcmeTransport, createTransport, failureOf, parseRetryAfter } from './acme_transport.js';

/** Tries of a request that the server is too busy for. */
const TRIES = 3;

/** Milliseconds before the second try; doubles. */
const BUSY_DELAY = 1_000;

/** Longest that a server may make a request wait; a longer wait ends the order. */
const MAX_BUSY_DELAY = 10_000;

export interface ExternalAccount {
  kid: string;
  /** Base64 or base64url. */
  hmacKey: string;
}

export interface AccountOptions {
  directoryUrl: string;
  email: string | undefined;
  externalAccount: ExternalAccount | undefined;
  /** The account's private key in PEM; asked for at each session. */
  key: () => Promise<string>;
  env: NodeJS.ProcessEnv;
}

/** What of the ACME library's client is ours to use and to replace: its transport, and requests that it signs. */
interface ClientParts {
  http: { request: AcmeTransport['request']; getResourceUrl(name: string): Promise<string> };
  api: {
    createAccount(payload: object): Promise<AcmeAnswer>;
    apiRequest(url: string, payload: object | null): Promise<AcmeAnswer>;
  };
}

/** An answer with what its headers say. */
export interface Reply<T> {
  data: T;
  location: string | undefined;
  /** Milliseconds; 0 when nothing was said. */
  retryAfter: number;
}

/** One account; registers itself (agreeing to the server's terms) when first needed. */
export class AcmeAccount {
  readonly #options: AccountOptions;
  #url: string | undefined;

  constructor(options: AccountOptions) {
    this.#options = options;
  }

  /**
   * Runs `work` with its own session.
   *
   * @param signal - ends the session's requests
   */
  async use<T>(signal: AbortSignal, work: (session: AcmeSession) => Promise<T>): Promise<T> {
    const { directoryUrl, email, externalAccount, env } = this.#options;
    const { Client, axios } = await import('acme-client');
    const client = new Client({
      directoryUrl,
      accountKey: await this.#options.key(),
      ...(this.#url !== undefined && { accountUrl: this.#url }),
      ...(externalAccount !== undefined && { externalAccountBinding: externalAccount }),
    });
    const transport = createTransport(axios, signal, env);
    const session = new AcmeSession(client, transport, signal);
    try {
      this.#url ??= await session.register(email);
      return await work(session);
    } catch (error) {
      if (error instanceof AcmeError && error.type === 'accountDoesNotExist') this.#url = undefined;
      throw error;
    } finally {
      transport.close();
    }
  }
}

/** Signed requests for one order. Everything rejects with {@link AcmeError}, or with the signal's reason. */
export class AcmeSession {
  readonly signal: AbortSignal;
  readonly #client: Client;
  readonly #parts: ClientParts;

  constructor(client: Client, transport: AcmeTransport, signal: AbortSignal) {
    this.signal = signal;
    this.#client = client;
    this.#parts = client as unknown as ClientParts;
    this.#parts.http.request = transport.request;
  }

  /** Makes the account, or finds it when the server knows the key; resolves to its URL. */
  async register(email: string | undefined): Promise<string> {
    const payload = { termsOfServiceAgreed: true, ...(email !== undefined && { contact: [`mailto:${email}`] }) };
    await this.#patiently('registering the account', () => this.#parts.api.createAccount({ ...payload }));
    return this.#client.getAccountUrl();
  }

  /** URL of a resource of the directory, such as `newOrder`. */
  resource(name: string): Promise<string> {
    return this.#patiently('reading the directory', () => this.#parts.http.getResourceUrl(name));
  }

  /** Without payload: reads the resource at `url`. */
  async post<T>(step: string, url: string, payload?: object): Promise<Reply<T>> {
    const { data, headers } = await this.#patiently(step, async () => {
      const answer = await this.#parts.api.apiRequest(url, payload ?? null);
      const failure = failureOf(url, answer);
      if (failure) throw failure;
      return answer;
    });
    return { data: data as T, location: headers.location, retryAfter: parseRetryAfter(headers['retry-after']) };
  }

  /** As {@link post}, of what must be answered with a JSON object; no member of it is checked. */
  async ask<T extends object>(step: string, url: string, payload?: object): Promise<Reply<T>> {
    const reply = await this.post<T>(step, url, payload);
    if (typeof reply.data === 'object' && reply.data !== null) return reply;
    throw new AcmeError(`${step}: the answer is not a JSON object; is something between this machine and the server?`);
  }

  /** What proves to the server that we hold the account: RFC 8555, section 8.1. */
  keyAuthorization(token: string): Promise<string> {
    return this.#client.getChallengeKeyAuthorization({ type: 'http-01', token, url: '', status: 'pending' });
  }

  /** Runs `request`, again after a while when the server says that it is too busy. */
  async #patiently<T>(step: string, request: () => Promise<T>): Promise<T> {
    const { signal } = this;
    for (let tries = 1; ; tries++) {
      try {
        return await request();
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        const failure = error instanceof AcmeError ? error : new AcmeError((error as Error).message, { cause: error });
        const delay = failure.retryAfter || BUSY_DELAY * 2 ** (tries - 1);
        const isBusy = failure.status !== undefined && failure.status >= 500;
        if (!isBusy || tries === TRIES || delay > MAX_BUSY_DELAY) throw failure.during(step);
        await sleep(delay, undefined, { signal, ref: false });
      }
    }
  }
}
