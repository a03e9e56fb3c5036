/** Mesh links that follow DNS: one to each address of a name, added and dropped as the name's records change. */
import { setTimeout as sleep } from 'node:timers/promises';
import { allAddresses } from '../all_addresses.js';
import { Readiness } from '../client/readiness.js';
import type { RelayAddress } from '../client/relay_address.js';
import { DerpError } from '../errors.js';
import { canonicalAddress, withPort } from '../ip_address.js';
import type { LimitedLog } from '../log_limit.js';
import { MESH_DNS_MAX_ADDRESSES } from './defaults.js';
import type { MeshName } from './mesh_host.js';
import type { MeshPeer } from './options.js';

/** All IPv4 and IPv6 addresses of a name. */
export type ResolveAddresses = (name: string) => Promise<string[]>;

export interface MeshDnsOptions {
  /** Milliseconds from the end of one lookup to the next. */
  interval: number;
  log: LimitedLog;
  /** Keeps a link to one address. */
  link: (address: RelayAddress) => MeshPeer;
  /** Default: as the system does. */
  resolve?: ResolveAddresses;
}

/** A link to one address. */
interface Linked {
  readonly peer: MeshPeer;
  /** Whether the last lookup lacked the address. The next one that lacks it ends the link: one answer may leave records out. */
  isMissing: boolean;
}

/** A link to each address of a name; to its owner they are one mesh peer. */
export class MeshDns implements MeshPeer {
  readonly host: string;
  readonly #name: MeshName;
  readonly #options: MeshDnsOptions;
  readonly #links = new Map<string, Linked>();
  readonly #ready = new Readiness();
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;
  /** What went wrong at the last lookup, which is said once. */
  #trouble = '';

  constructor(name: MeshName, options: MeshDnsOptions) {
    this.host = name.name;
    this.#name = name;
    this.#options = options;
    this.#running = this.#follow();
  }

  /** Whether any link is up. */
  get isUp(): boolean {
    return [...this.#links.values()].some(({ peer }) => peer.isUp);
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Drops all links, and follows no more. */
  async close(): Promise<void> {
    this.#ending.abort();
    this.#ready.reject(new DerpError('ERR_DERP_CLOSED', 'the mesh peer was closed'));
    await Promise.all([this.#running, ...[...this.#links.values()].map(({ peer }) => peer.close())]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#ending;
    const ended = new Promise<undefined>((resolve) => {
      signal.addEventListener('abort', () => resolve(undefined), { once: true });
    });
    while (!signal.aborted) {
      // A lookup that hangs must not hold up the end, and none is begun beside it.
      const addresses = await Promise.race([this.#lookUp(), ended]);
      if (addresses !== undefined && !signal.aborted) await this.#linkTo(addresses);
      await sleep(this.#options.interval, undefined, { signal }).catch(() => {});
    }
  }

  /** Sorted; undefined when the lookup failed, which leaves all links as they are. */
  async #lookUp(): Promise<string[] | undefined> {
    const { resolve = allAddresses } = this.#options;
    let found: string[];
    try {
      found = await resolve(this.#name.dnsName);
    } catch (error) {
      this.#warn(`DNS lookup: ${(error as Error).message}; links stay as they are`);
      return undefined;
    }
    const addresses = [...new Set(found.flatMap((address) => canonicalAddress(address) ?? []))].sort();
    if (addresses.length > MESH_DNS_MAX_ADDRESSES) {
      this.#warn(`DNS lookup: ${addresses.length} addresses, using ${MESH_DNS_MAX_ADDRESSES}`);
    } else {
      this.#trouble = '';
    }
    return addresses.slice(0, MESH_DNS_MAX_ADDRESSES);
  }

  /** Adds links that are missing; drops those whose address was missing from this lookup and the one before. */
  async #linkTo(addresses: readonly string[]): Promise<void> {
    const closing: Promise<void>[] = [];
    for (const [address, linked] of this.#links) {
      const isMissing = !addresses.includes(address);
      if (isMissing && linked.isMissing) {
        this.#links.delete(address);
        this.#info(`${address} left DNS; ending its link`);
        closing.push(linked.peer.close());
      }
      linked.isMissing = isMissing;
    }
    for (const address of addresses) if (!this.#links.has(address)) this.#add(address);
    await Promise.all(closing);
  }

  #add(address: string): void {
    const { scheme, port, certificateName } = this.#name;
    const name = withPort(address, port);
    const url = new URL(`${scheme}://${withPort(certificateName ?? address, port)}/derp`);
    this.#info(`${address} found in DNS`);
    const peer = this.#options.link({ name, url, dialHost: address });
    peer.ready.then(this.#ready.resolve, () => {});
    this.#links.set(address, { peer, isMissing: false });
  }

  /** The same thing once until something else happens. */
  #warn(message: string): void {
    if (message === this.#trouble) return;
    this.#trouble = message;
    this.#write('warn', message);
  }

  #info(message: string): void {
    this.#write('info', message);
  }

  #write(level: 'info' | 'warn', message: string): void {
    this.#options.log.log(level, `mesh ${this.host}`, {}, `mesh(${JSON.stringify(this.host)}): ${message}`);
  }
}
