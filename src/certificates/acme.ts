/** Certificates from an ACME authority: `-certmode letsencrypt` and `gcp`. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { DerpError } from '../errors.js';
import { canonicalHost } from '../host_name.js';
import { canonicalAddress, isPublicAddress } from '../ip_address.js';
import type { Logger } from '../log.js';
import type { CertificateSink, CertificateText } from '../tls/tls_context.js';
import { accountKey, readAccountKey } from './account_key.js';
import { AcmeChallenges } from './acme_challenges.js';
import { type AcmeOptions, type AcmePlan, planAcme } from './acme_options.js';
import { type ChallengeType, orderCertificate, type Wish } from './acme_order.js';
import { AcmeAccount } from './acme_session.js';
import { CertificateFolder } from './certificate_folder.js';
import { addressStore, hostStore } from './certificate_store.js';
import { type Clock, systemClock } from './clock.js';
import type { CertificateLife } from './expiry.js';
import { ManagedCertificate, type ManagedCertificateOptions } from './managed_certificate.js';

export type { AcmeOptions } from './acme_options.js';

const MINUTE = 60_000;

/** Milliseconds for all of an order. */
const HOST_ORDER_TIMEOUT = 5 * MINUTE;
const ADDRESS_ORDER_TIMEOUT = 3 * MINUTE;

/** Milliseconds between looks for new addresses of this machine. */
const ADDRESS_SCAN_INTERVAL = 60 * MINUTE;

/** Addresses with certificates; a machine may answer for whole networks, and each would cost an order. */
const MAX_ADDRESSES = 64;

/** Profile of certificate in which Let's Encrypt names IP addresses. */
const ADDRESS_PROFILE = 'shortlived';

/** Account keys as derper names them; the second of a host's is that of its old releases. */
const HOST_ACCOUNT_KEYS: [string, ...string[]] = ['acme_account+key', 'acme_account.key'];
const ADDRESS_ACCOUNT_KEYS: [string, ...string[]] = ['acme-account.key'];

export interface AcmeCertificates {
  /** Asks for what there is none of. Call it once the ports listen: the authority connects to them. */
  start(): void;
  /** Handshakes wait for `name`: a host (any case), or the local IP address of the connection. */
  wanted(name: string): void;
  /**
   * Answers HTTP-01 challenges on the plain port.
   *
   * @returns whether the request was one and is answered
   */
  challenge(request: IncomingMessage, response: ServerResponse): boolean;
  /** What is served. */
  expiry(): CertificateLife[];
  /** Ends orders under way; what is served stays. */
  close(): Promise<void>;
}

/**
 * Makes a source of certificates; nothing is asked for before `start()`.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` when options do not fit together, the folder cannot be made, or the key of an
 *   account in it cannot be used
 */
export async function acmeCertificates(options: AcmeOptions): Promise<AcmeCertificates> {
  const plan = planAcme(options);
  const folder = new CertificateFolder(options.certDir);
  try {
    await folder.make();
    if (plan.host !== undefined) await readAccountKey(folder, HOST_ACCOUNT_KEYS);
    if (options.ipCertificates) await readAccountKey(folder, ADDRESS_ACCOUNT_KEYS);
  } catch (error) {
    throw new DerpError('ERR_DERP_BAD_OPTION', `-certdir: ${(error as Error).message}`, { cause: error });
  }
  return new AcmeSource(options, plan, folder);
}

class AcmeSource implements AcmeCertificates {
  readonly #plan: AcmePlan;
  readonly #sink: CertificateSink;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #folder: CertificateFolder;
  readonly #challenges: AcmeChallenges;
  readonly #httpChallenge: boolean;
  readonly #ipCertificates: boolean;
  readonly #hostAccount: AcmeAccount;
  readonly #addressAccount: AcmeAccount;
  /** The host's, in order of preference: EC, then RSA where a file of that is kept. */
  readonly #host: ManagedCertificate[] = [];
  readonly #addresses = new Map<string, ManagedCertificate>();
  /** Orders under way or waiting for their turn, by name: two for one name would mix up their challenges. */
  readonly #turns = new Map<string, Promise<unknown>>();
  #cancelScan: (() => void) | undefined;
  #closed = false;

  constructor(options: AcmeOptions, plan: AcmePlan, folder: CertificateFolder) {
    const { sink, logger, clock = systemClock, httpChallenge = true, ipCertificates, env = process.env } = options;
    this.#plan = plan;
    this.#sink = sink;
    this.#logger = logger;
    this.#clock = clock;
    this.#httpChallenge = httpChallenge;
    this.#ipCertificates = ipCertificates;
    this.#folder = folder;
    this.#challenges = new AcmeChallenges({
      sink,
      folder,
      servesHost: (host) => host === plan.host || (ipCertificates && isIP(host) !== 0),
      logger,
    });
    const account = { directoryUrl: plan.directoryUrl, email: plan.email, externalAccount: plan.externalAccount, env };
    this.#hostAccount = new AcmeAccount({ ...account, key: accountKey(folder, HOST_ACCOUNT_KEYS, logger) });
    this.#addressAccount = new AcmeAccount({ ...account, key: accountKey(folder, ADDRESS_ACCOUNT_KEYS, logger) });
  }

  start(): void {
    const { host, address } = this.#plan;
    if (host !== undefined) this.#startHost(host);
    if (!this.#ipCertificates) return;
    if (!this.#httpChallenge) {
      this.#logger.warn({}, 'derper: acme: -acme-ip-certs needs the plain port for HTTP-01 challenges: set -http-port');
    }
    if (address !== undefined) this.#addAddress(address, 'keep');
    this.#scanAddresses();
    this.#tellAddresses();
  }

  wanted(name: string): void {
    if (this.#closed) return;
    const host = canonicalHost(name) ?? '';
    if (isIP(host) === 0) {
      if (host === this.#plan.host) for (const certificate of this.#host) certificate.want();
    } else if (this.#ipCertificates) {
      this.#addAddress(host, 'ask')?.want();
    }
  }

  challenge(request: IncomingMessage, response: ServerResponse): boolean {
    return this.#challenges.handle(request, response);
  }

  expiry(): CertificateLife[] {
    const served: CertificateLife[] = [];
    const add = (name: string, { current }: ManagedCertificate) => {
      if (current === undefined) return;
      served.push({ name, notBefore: new Date(current.notBefore), notAfter: new Date(current.notAfter) });
    };
    for (const [i, certificate] of this.#host.entries()) add(hostFile(this.#plan.host as string, i > 0), certificate);
    for (const [address, certificate] of this.#addresses) add(address, certificate);
    return served;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelScan?.();
    await Promise.all([...this.#host, ...this.#addresses.values()].map((certificate) => certificate.close()));
  }

  #startHost(host: string): void {
    this.#addHost(host, 'ec');
    const store = hostStore(this.#folder, host, hostFile(host, true));
    // Clients without ECDSA are all but gone: RSA is for folders that have it already.
    store.load().then(
      (kept) => {
        if (kept !== undefined && kept.notAfter > this.#clock.now() && !this.#closed) this.#addHost(host, 'rsa');
      },
      (error: Error) => this.#logger.warn({}, `derper: acme: ${error.message}; it is left alone`),
    );
  }

  #addHost(host: string, keyType: 'ec' | 'rsa'): void {
    const challenges: ChallengeType[] = this.#httpChallenge ? ['tls-alpn-01', 'http-01'] : ['tls-alpn-01'];
    const certificate = this.#manage(
      this.#hostAccount,
      { name: host, keyType, challenges },
      {
        store: hostStore(this.#folder, host, hostFile(host, keyType === 'rsa')),
        orderTimeout: HOST_ORDER_TIMEOUT,
        policy: 'keep',
        relaxed: true,
        serve: (served) => {
          const all = this.#host.map((each) => (each === certificate ? served : each.current));
          this.#sink.set(host, all.filter((each) => each !== undefined).map(textOf));
        },
        expect: (expected) => {
          if (keyType === 'ec') this.#expect(host, expected);
        },
      },
    );
    this.#host.push(certificate);
    certificate.start();
  }

  /** The certificate of an address, managed from now on; `undefined` for an address that can have none. */
  #addAddress(address: string, policy: 'ask' | 'keep'): ManagedCertificate | undefined {
    const known = this.#addresses.get(address);
    if (known !== undefined) return known;
    const canBeHad = this.#plan.anyAddress || isPublicAddress(address);
    if (!canBeHad || this.#addresses.size >= MAX_ADDRESSES) return undefined;
    // Behind address translation the local address is another than the one that clients connect to.
    const names = address === this.#plan.address ? [address, '*'] : [address];
    const wish: Wish = { name: address, keyType: 'ec', profile: ADDRESS_PROFILE, challenges: ['http-01'] };
    const certificate = this.#manage(this.#addressAccount, wish, {
      store: addressStore(this.#folder, address),
      orderTimeout: ADDRESS_ORDER_TIMEOUT,
      policy,
      relaxed: false,
      serve: (served) => {
        for (const name of names) this.#sink.set(name, [textOf(served)]);
      },
      expect: (expected) => {
        for (const name of names) this.#expect(name, expected);
      },
      hint: `; its entry in a DERP map: ${JSON.stringify({ Name: 'custom', RegionID: 900, HostName: address })}`,
    });
    this.#addresses.set(address, certificate);
    certificate.start();
    return certificate;
  }

  #manage(
    account: AcmeAccount,
    wish: Wish,
    options: Omit<ManagedCertificateOptions, 'name' | 'order' | 'logger' | 'clock'>,
  ): ManagedCertificate {
    return new ManagedCertificate({
      ...options,
      name: wish.name,
      order: (signal) => this.#inTurn(wish.name, () => this.#order(account, wish, signal)),
      logger: this.#logger,
      clock: this.#clock,
    });
  }

  #expect(name: string, expected: boolean): void {
    if (expected) this.#sink.expect(name);
    else this.#sink.unexpect(name);
  }

  #order(account: AcmeAccount, wish: Wish, signal: AbortSignal): Promise<CertificateText> {
    this.#logger.info({}, `derper: acme: asking ${new URL(this.#plan.directoryUrl).host} for a cert for ${wish.name}`);
    return account.use(signal, (session) => orderCertificate(session, wish, this.#challenges.answering(wish.name)));
  }

  async #inTurn<T>(name: string, task: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(name) ?? Promise.resolve();
    const turn = before.then(task, task);
    this.#turns.set(name, turn);
    return turn;
  }

  /** Lets handshakes at the addresses of this machine wait for a certificate, which is asked for when the first one does. */
  #scanAddresses(): void {
    const own = localAddresses();
    if (this.#addresses.size + own.size > MAX_ADDRESSES) this.#forgetOthers(own);
    for (const address of own) this.#addAddress(address, 'ask');
    this.#cancelScan = this.#clock.after(ADDRESS_SCAN_INTERVAL, () => this.#scanAddresses());
  }

  /** Makes room: machines whose addresses change would otherwise use all of it up in time. */
  #forgetOthers(own: ReadonlySet<string>): void {
    for (const [address, certificate] of this.#addresses) {
      if (own.has(address) || address === this.#plan.address) continue;
      this.#addresses.delete(address);
      void certificate.close();
      this.#sink.unexpect(address);
      this.#sink.delete(address);
    }
  }

  /** An operator whose machine sits behind address translation would wait in vain. */
  #tellAddresses(): void {
    const addresses = [...this.#addresses.keys()];
    if (addresses.length > 0) {
      this.#logger.info({}, `derper: acme: certs are asked for when clients connect to ${addresses.join(', ')}`);
      return;
    }
    this.#logger.warn(
      {},
      'derper: acme: -acme-ip-certs: this machine has no public IP address; behind NAT, give the public one as -hostname',
    );
  }
}

/** What a sink takes of a pair, without what is known of it. */
function textOf({ cert, key }: CertificateText): CertificateText {
  return { cert, key };
}

function hostFile(host: string, isRsa: boolean): string {
  return isRsa ? `${host}+rsa` : host;
}

function localAddresses(): Set<string> {
  const found = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return new Set(found.map(({ address }) => canonicalAddress(address)).filter((address) => address !== undefined));
}
