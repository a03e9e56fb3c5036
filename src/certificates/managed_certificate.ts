/** One certificate that is kept valid: read from disk, asked for, renewed. */
import type { Logger } from '../log.js';
import type { CertificateText } from '../tls/tls_context.js';
import { AcmeError } from './acme_error.js';
import type { CertificateStore } from './certificate_store.js';
import type { Clock } from './clock.js';
import { checkPair, type KeyPair } from './key_pair.js';
import { firstRetryDelay, renewalRetryDelay, renewalTime } from './renewal.js';

/** Longest that a timer is trusted: clocks jump, machines sleep. */
const MAX_SLEEP = 60 * 60_000;

/** Milliseconds by which a clock may be behind that of an authority without being called wrong. */
const CLOCK_TOLERANCE = 60_000;

/** What is wrong with a new certificate is the authority's fault. */
const ANSWER = { cert: 'what the authority sent', key: 'the new key' };

export interface ManagedCertificateOptions {
  /** DNS name or IP address. */
  name: string;
  store: CertificateStore;
  /** Asks an authority for a new one. */
  order: (signal: AbortSignal) => Promise<CertificateText>;
  /** Milliseconds that an order may take. */
  orderTimeout: number;
  /** `ask`: only when a handshake wants it and there is none; `keep`: always. */
  policy: 'ask' | 'keep';
  /** Whether renewals are spread at random, and failed ones wait 30 to 60 min instead of 1 min doubling to 30. */
  relaxed: boolean;
  /** Serves it from now on; throws when it cannot be served. */
  serve: (certificate: KeyPair) => void;
  /** Whether handshakes should wait for a first certificate. */
  expect: (expected: boolean) => void;
  /** Said behind the line about a new certificate. */
  hint?: string;
  logger: Logger;
  clock: Clock;
}

/** Never has two orders under way. */
export class ManagedCertificate {
  readonly #options: ManagedCertificateOptions;
  readonly #stop = new AbortController();
  /** Spreads this certificate's renewals: 0 to 1. */
  readonly #spread: number;
  #current: KeyPair | undefined;
  /** Served, but not on disk yet. */
  #unsaved: CertificateText | undefined;
  #wanted = false;
  #expected = false;
  #attempt: Promise<void> | undefined;
  #cancelTimer: (() => void) | undefined;
  /** Failures in a row. */
  #failures = 0;
  /** On the monotonic clock: no attempt before. */
  #notBefore = 0;
  #saidAboutFile = '';
  #saidAboutClock = false;

  constructor(options: ManagedCertificateOptions) {
    this.#options = options;
    this.#spread = options.relaxed ? Math.random() : 0;
  }

  /** What is served, valid or not. */
  get current(): KeyPair | undefined {
    return this.#current;
  }

  /** Begins its life; handshakes wait from now on. */
  start(): void {
    this.#check();
  }

  /** A handshake waits for it. */
  want(): void {
    if (this.#current !== undefined) return;
    this.#wanted = true;
    this.#check();
  }

  /** Ends an order under way. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#cancelTimer?.();
    await this.#attempt;
  }

  /** Does what is due now, or sleeps until something is. */
  #check(): void {
    if (this.#attempt !== undefined || this.#stop.signal.aborted) return;
    this.#checkClock();
    const { clock, policy } = this.#options;
    const pause = this.#notBefore - clock.monotonic();
    if (pause <= 0 && this.#current === undefined) {
      this.#expect(true);
      if (policy === 'ask' && !this.#wanted) return;
    }
    const wait = Math.max(pause, this.#untilRenewal());
    if (wait > 0) {
      this.#cancelTimer?.();
      this.#cancelTimer = clock.after(Math.min(wait, MAX_SLEEP), () => this.#wake());
      return;
    }
    this.#run(this.#renew());
  }

  #wake(): void {
    if (this.#unsaved !== undefined) this.#run(this.#save(this.#unsaved));
    else if (this.#isHeldBack()) this.#run(this.#lookAgain());
    else this.#check();
  }

  /** Whether a new certificate is due, but must not be asked for yet. */
  #isHeldBack(): boolean {
    return this.#untilRenewal() <= 0 && this.#notBefore > this.#options.clock.monotonic();
  }

  #run(work: Promise<void>): void {
    this.#attempt = work.finally(() => {
      this.#attempt = undefined;
      this.#wanted = false;
      this.#check();
    });
  }

  #expect(expected: boolean): void {
    if (expected === this.#expected) return;
    this.#expected = expected;
    this.#options.expect(expected);
  }

  #untilRenewal(): number {
    if (this.#current === undefined) return 0;
    return renewalTime(this.#current, this.#spread) - this.#options.clock.now();
  }

  #isValid(certificate: KeyPair | undefined): boolean {
    return certificate !== undefined && this.#options.clock.now() < certificate.notAfter;
  }

  #isBetter(kept: KeyPair): boolean {
    return this.#isValid(kept) && (this.#current === undefined || kept.notAfter > this.#current.notAfter);
  }

  async #renew(): Promise<void> {
    const kept = await this.#load();
    if (kept !== undefined && this.#take(kept)) return;
    try {
      await this.#order();
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      // Past its end it still serves clients whose clocks are right when ours is not.
      if (kept !== undefined && this.#current === undefined) this.#serve(kept);
      this.#fail(error);
    }
  }

  /** An authority may hold us back for a day; what somebody put into the folder in the meantime is taken within the hour. */
  async #lookAgain(): Promise<void> {
    const kept = await this.#load();
    if (kept !== undefined) this.#take(kept);
  }

  /** Serves what is on disk if it is better; whether that makes a new one needless. */
  #take(kept: KeyPair): boolean {
    if (!this.#isBetter(kept) || !this.#serve(kept) || this.#untilRenewal() <= 0) return false;
    this.#options.logger.info({}, `derper: acme: loaded cached cert for ${this.#options.name} (${expiry(kept)})`);
    return true;
  }

  /** Reads the files, where another relay may have put a newer certificate. Unusable files are logged once and left alone. */
  async #load(): Promise<KeyPair | undefined> {
    try {
      const kept = await this.#options.store.load();
      this.#saidAboutFile = '';
      return kept;
    } catch (error) {
      const { message } = error as Error;
      if (message !== this.#saidAboutFile) {
        this.#options.logger.warn({}, `derper: acme: ${message}; a new certificate is asked for`);
        this.#saidAboutFile = message;
      }
      return undefined;
    }
  }

  async #order(): Promise<void> {
    const { name, orderTimeout, order, logger, hint } = this.#options;
    const deadline = AbortSignal.timeout(orderTimeout);
    const certificate = await order(AbortSignal.any([this.#stop.signal, deadline])).catch((error: unknown) => {
      throw deadline.aborted && !(error instanceof AcmeError)
        ? new AcmeError(`not done within ${orderTimeout / 60_000} min`, { cause: error })
        : error;
    });
    const checked = checkPair(certificate, name, ANSWER);
    this.#install(checked);
    this.#failures = 0;
    logger.info({}, `derper: acme: got cert for ${name} (${expiry(checked)})${hint ?? ''}`);
    if (this.#untilRenewal() <= 0) this.#distrustClock(checked);
    await this.#save(checked);
  }

  /** A failure to save is logged once and retried at each check of the clock. */
  async #save(certificate: CertificateText): Promise<void> {
    const { name, store, logger } = this.#options;
    try {
      await store.save(certificate);
      this.#unsaved = undefined;
    } catch (error) {
      if (this.#unsaved === undefined) {
        const reason = (error as Error).message;
        logger.error({}, `derper: acme: cert for ${name} is not kept on disk, and served from memory only: ${reason}`);
      }
      this.#unsaved = certificate;
    }
  }

  #serve(certificate: KeyPair): boolean {
    try {
      this.#install(certificate);
      return true;
    } catch (error) {
      const { name, logger } = this.#options;
      logger.warn({}, `derper: acme: the cached cert for ${name} cannot be served: ${(error as Error).message}`);
      return false;
    }
  }

  #install(certificate: KeyPair): void {
    this.#options.serve(certificate);
    this.#current = certificate;
    this.#expect(false);
    this.#checkClock();
  }

  #fail(error: unknown): void {
    const { name, relaxed, clock, logger } = this.#options;
    this.#failures++;
    const retryAfter = error instanceof AcmeError ? error.retryAfter : undefined;
    const delay =
      relaxed && this.#isValid(this.#current)
        ? renewalRetryDelay(Math.random(), retryAfter)
        : firstRetryDelay(this.#failures, retryAfter);
    this.#notBefore = clock.monotonic() + delay;
    this.#expect(false);
    const next = `next attempt in ${Math.round(delay / 60_000)} min`;
    logger.error({}, `derper: acme: getting cert for ${name}: ${(error as Error).message} (${next})`);
  }

  /** Says once when a certificate is not valid yet. */
  #checkClock(): void {
    const certificate = this.#current;
    if (certificate === undefined) return;
    const { name, clock, logger } = this.#options;
    const isBehind = clock.now() < certificate.notBefore - CLOCK_TOLERANCE;
    if (isBehind && !this.#saidAboutClock) {
      const begin = new Date(certificate.notBefore).toISOString();
      logger.warn({}, `derper: acme: cert for ${name} is valid from ${begin} on, but ${this.#clockSays()}`);
    }
    this.#saidAboutClock = isBehind;
  }

  /** A certificate that is new and due at once means a clock far ahead; asking on would only use up the authority's patience. */
  #distrustClock(certificate: KeyPair): void {
    const { name, clock, logger } = this.#options;
    this.#notBefore = clock.monotonic() + renewalRetryDelay(Math.random());
    logger.warn({}, `derper: acme: cert for ${name} is new (${expiry(certificate)}), but ${this.#clockSays()}`);
  }

  #clockSays(): string {
    return `this machine's clock says ${new Date(this.#options.clock.now()).toISOString()}: set it right (NTP)`;
  }
}

function expiry({ notAfter }: KeyPair): string {
  return `expires ${new Date(notAfter).toISOString()}`;
}
