import { Readiness } from '../client/readiness.js';
import type { RelayAddress } from '../client/relay_address.js';
import type { LimitedLog } from '../log_limit.js';
import { MESH_REPEAT_INTERVAL } from './defaults.js';

/** A host and what the log was last told of it. */
export class MeshTarget {
  readonly host: RelayAddress;
  /** Aborted when there shall be no link any more. */
  readonly ending = new AbortController();
  /** Settled when the link is up for the first time, or never will be. */
  readonly ready = new Readiness();
  /** Whether the link is up now, and lasted long enough to be reported. */
  isUp = false;
  readonly #log: LimitedLog;
  #trouble = '';
  #toldAt = 0;

  constructor(host: RelayAddress, log: LimitedLog) {
    this.host = host;
    this.#log = log;
  }

  info(message: string): void {
    this.#write('info', message);
  }

  /** Warns, the same thing only now and then. */
  warn(message: string): void {
    const now = performance.now();
    if (message === this.#trouble && now - this.#toldAt < MESH_REPEAT_INTERVAL) return;
    this.#trouble = message;
    this.#toldAt = now;
    this.#write('warn', message);
  }

  /** All is well: what goes wrong next is news. */
  recovered(): void {
    this.#trouble = '';
  }

  #write(level: 'info' | 'warn', message: string): void {
    const { name } = this.host;
    this.#log.log(level, `mesh ${name}`, {}, `mesh(${JSON.stringify(name)}): ${message}`);
  }
}
