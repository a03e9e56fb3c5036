/** When certificates end, and the warnings before. */
import type { Logger } from '../log.js';

/** One certificate that is served. */
export interface CertificateExpiry {
  /** What it is served for: a DNS name or an IP address. */
  name: string;
  notAfter: Date;
}

/** Lifetime of the certificate; decides when a warning is due. */
export interface CertificateLife extends CertificateExpiry {
  notBefore: Date;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** Longest before the end (ms) at which warnings begin. */
const MAX_WARNING_TIME = 14 * DAY;

/**
 * Milliseconds before the end at which warnings begin: a quarter of the life, so that those of short lives come when a renewal (a third
 * before the end) is overdue and not all the time; 14 days at most.
 */
function warningTime({ notBefore, notAfter }: CertificateLife): number {
  return Math.min((notAfter.getTime() - notBefore.getTime()) / 4, MAX_WARNING_TIME);
}

/** Whole days until `date`, below 0 when it is past. */
export function daysUntil(date: Date, now: number): number {
  return Math.floor((date.getTime() - now) / DAY);
}

/** Warns of certificates that end soon: once a day and certificate, and at once when a new one ends soon as well. */
export class ExpiryWatch {
  readonly #read: () => readonly CertificateLife[];
  readonly #logger: Logger;
  readonly #remedy: string;
  readonly #timer: NodeJS.Timeout;
  /** By name, when which end was warned of. */
  readonly #warned = new Map<string, { notAfter: number; at: number }>();

  /** @param remedy - what is said of a certificate beyond its dates */
  constructor(read: () => readonly CertificateLife[], logger: Logger, remedy: string) {
    this.#read = read;
    this.#logger = logger;
    this.#remedy = remedy;
    // Hourly against the wall clock: a timer of days would run by another clock when this one is set.
    this.#timer = setInterval(() => this.check(), HOUR).unref();
  }

  /** Looks now. */
  check(now = Date.now()): void {
    const expiries = this.#read();
    for (const certificate of expiries) {
      const { name, notAfter } = certificate;
      const end = notAfter.getTime();
      const last = this.#warned.get(name);
      const due = last === undefined || last.notAfter !== end || Math.abs(now - last.at) >= DAY;
      if (end - now >= warningTime(certificate) || !due) continue;
      this.#warned.set(name, { notAfter: end, at: now });
      this.#warn(name, notAfter, now);
    }
    const served = new Set(expiries.map(({ name }) => name));
    for (const name of this.#warned.keys()) if (!served.has(name)) this.#warned.delete(name);
  }

  #warn(name: string, notAfter: Date, now: number): void {
    const date = notAfter.toISOString();
    const days = daysUntil(notAfter, now);
    if (now > notAfter.getTime()) {
      this.#logger.warn({}, `certificate of ${name} expired on ${date}: clients refuse it; ${this.#remedy}`);
    } else {
      const rest = days === 1 ? '1 day' : `${days} days`;
      this.#logger.warn({}, `certificate of ${name} expires on ${date}, in ${rest}; ${this.#remedy}`);
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
