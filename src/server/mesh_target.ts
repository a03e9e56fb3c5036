import { Readiness } from '../client/readiness.js';
import type { RelayAddress } from '../client/relay_address.js';
import type { LimitedLog } from '../log_limit.js';
import { MESH_REPEAT_INTERVAL } from './defaults.js';
import { Redial } from './redial.js';

/** A host and its last log line. */
export class MeshTarget {
  readonly host: RelayAddress;
  /** Aborted to end the link for good. */
  readonly ending = new AbortController();
  /** Settles when the link is first up, or when it never will be. */
  readonly ready = new Readiness();
  readonly redial: Redial;
  /** Links to other addresses of the same name, by the hexadecimal key of the relay there: one link to each relay is enough. */
  readonly siblings: Map<string, MeshTarget>;
  /** The key of the relay, once another link was found to go there. */
  sharedKey: string | undefined;
  /** Whether the link is up now, and lasted long enough to be reported. */
  isUp = false;
  readonly #log: LimitedLog;
  #trouble = '';
  #toldAt = 0;

  /** @param retryInterval - milliseconds; the longest wait before the link is dialled again */
  constructor(
    host: RelayAddress,
    { log, retryInterval }: { log: LimitedLog; retryInterval: number },
    siblings: Map<string, MeshTarget>,
  ) {
    this.host = host;
    this.#log = log;
    this.redial = new Redial(retryInterval);
    this.siblings = siblings;
  }

  /** Whether a link to another address goes to the same relay. */
  get isShared(): boolean {
    return this.sharedKey !== undefined && this.siblings.has(this.sharedKey);
  }

  info(message: string): void {
    this.#write('info', message);
  }

  /** Warns; repeats the same warning only at intervals. */
  warn(message: string): void {
    const now = performance.now();
    if (message === this.#trouble && now - this.#toldAt < MESH_REPEAT_INTERVAL) return;
    this.#trouble = message;
    this.#toldAt = now;
    this.#write('warn', message);
  }

  /** The link works: log the next trouble at once. */
  recovered(): void {
    this.#trouble = '';
    this.redial.recovered();
  }

  #write(level: 'info' | 'warn', message: string): void {
    const { name } = this.host;
    this.#log.log(level, `mesh ${name}`, {}, `mesh(${JSON.stringify(name)}): ${message}`);
  }
}
