/** Asks an admission server by HTTP, by derper's rules. */
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Readable } from 'node:stream';
import { createSecureContext } from 'node:tls';
import type { AxiosError } from 'axios';
import { badOption } from '../checks.js';
import { httpClient, isHttpUrl, isLoopback, userAgent } from '../http_client.js';
import { canonicalAddress } from '../ip_address.js';
import { rootsPem } from '../tls/roots.js';
import { type Admission, type AdmissionRequest, type AdmissionSource, ALLOWED } from './decision.js';
import { readAnswer } from './url_answer.js';

/** Milliseconds from the question to the last byte of the answer, redirects included; derper's. */
const TIMEOUT = 5_000;

/** Redirects that are followed; derper's ten requests. */
const MAX_REDIRECTS = 9;

/** Answers that are kept: at most some 300 bytes each. The oldest goes first. */
const MAX_CACHED = 65_536;

export interface UrlOptions {
  url: string;
  /** Whether clients are let in while the server is unreachable. */
  failOpen: boolean;
  /** Milliseconds for which an answer that lets a client in counts for its key and address; 0 = not at all. */
  cache: number;
  /** Called for each client that is let in since the server is unreachable. */
  onFailOpen: (request: AdmissionRequest, error: Error) => void;
  /** Milliseconds. Default: 5,000. */
  timeout?: number;
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` */
export function checkAdmissionUrl(url: string, name: string): void {
  if (!isHttpUrl(url)) throw badOption(`${name}: must be an http:// or https:// URL`);
}

export class UrlAdmission implements AdmissionSource {
  readonly name = 'url';
  readonly #options: UrlOptions;
  readonly #timeout: number;
  readonly #httpAgent = new HttpAgent({ keepAlive: true });
  readonly #httpsAgent: HttpsAgent;
  readonly #cache = new Map<string, { decision: Admission; until: number }>();
  #failedOpen = 0;

  /** @throws DerpError `ERR_DERP_CERTIFICATE` when a file of roots that the environment names is unreadable */
  constructor(options: UrlOptions) {
    this.#options = options;
    this.#timeout = options.timeout ?? TIMEOUT;
    const ca = new URL(options.url).protocol === 'https:' ? rootsPem(process.env) : undefined;
    this.#httpsAgent = new HttpsAgent({
      keepAlive: true,
      ...(ca !== undefined && { secureContext: createSecureContext({ ca }) }),
    });
  }

  /** Clients let in since start although the server was unreachable. */
  get failedOpen(): number {
    return this.#failedOpen;
  }

  async admit(request: AdmissionRequest, signal: AbortSignal): Promise<Admission> {
    const ip = ipOf(request.address);
    const known = this.#known(request, ip);
    if (known !== undefined) return known;
    const deadline = AbortSignal.timeout(this.#timeout);
    const both = AbortSignal.any([signal, deadline]);
    let answer: Answer;
    try {
      answer = await this.#ask(request, ip, both);
    } catch (error) {
      if (signal.aborted || !this.#options.failOpen) throw this.#unreachable(error as AxiosError, deadline);
      this.#failedOpen++;
      this.#options.onFailOpen(request, this.#unreachable(error as AxiosError, deadline));
      return ALLOWED;
    }
    if (answer.status !== 200) {
      answer.data.destroy();
      throw new Error(`admission controller: ${answer.status} ${answer.statusText}`.trimEnd());
    }
    const decision = await readAnswer(answer.data, both);
    if (!decision.allow) throw new Error(`admission controller: ${request.key}/${ip || 'invalid IP'} not allowed`);
    this.#keep(request, ip, decision);
    return decision;
  }

  close(): void {
    this.#httpAgent.destroy();
    this.#httpsAgent.destroy();
  }

  /** @throws AxiosError when there is no answer */
  async #ask(request: AdmissionRequest, ip: string, signal: AbortSignal): Promise<Answer> {
    const client = await httpClient();
    const question = {
      url: this.#options.url,
      method: 'POST',
      data: Buffer.from(JSON.stringify({ NodePublic: String(request.key), Source: ip })),
      headers: { 'Content-Type': false, 'User-Agent': userAgent() },
      responseType: 'stream',
      maxRedirects: MAX_REDIRECTS,
      validateStatus: null,
      signal,
      ...(isLoopback(this.#options.url) && { proxy: false as const }),
    } as const;
    try {
      return await client.request({ ...question, httpAgent: this.#httpAgent, httpsAgent: this.#httpsAgent });
    } catch (error) {
      // The server closed a kept connection as we asked: that says nothing about the server.
      if ((error as AxiosError).code !== 'ECONNRESET' || signal.aborted) throw error;
      return client.request({ ...question, httpAgent: FRESH_HTTP, httpsAgent: this.#fresh() });
    }
  }

  #fresh(): HttpsAgent {
    return new HttpsAgent({ ...this.#httpsAgent.options, keepAlive: false });
  }

  #unreachable(error: AxiosError, deadline: AbortSignal): Error {
    const why = deadline.aborted ? `no answer within ${this.#timeout / 1000} s` : error.message || error.code;
    return new Error(`admission controller unreachable: ${why}`, { cause: error });
  }

  #known({ key }: AdmissionRequest, ip: string): Admission | undefined {
    if (this.#options.cache === 0) return undefined;
    const entry = this.#cache.get(`${key.hex} ${ip}`);
    return entry !== undefined && performance.now() < entry.until ? entry.decision : undefined;
  }

  #keep({ key }: AdmissionRequest, ip: string, decision: Admission): void {
    if (this.#options.cache === 0) return;
    const name = `${key.hex} ${ip}`;
    this.#cache.delete(name);
    this.#cache.set(name, { decision, until: performance.now() + this.#options.cache });
    if (this.#cache.size > MAX_CACHED) this.#cache.delete(this.#cache.keys().next().value!);
  }
}

interface Answer {
  status: number;
  statusText: string;
  data: Readable;
}

const FRESH_HTTP = new HttpAgent({ keepAlive: false });

/** Of `ip:port`; empty for anything else. */
export function ipOf(address: string): string {
  const [, bracketed, plain] = /^(?:\[(.*)\]|([^[\]:]*)):\d+$/.exec(address) ?? [];
  return canonicalAddress(bracketed ?? plain ?? '') ?? '';
}
