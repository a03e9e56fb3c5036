/** When certificates end, and the warnings before. */
import type { Logger } from '../log.js';

/** One certificate that is served. */
export interface CertificateExpiry {
  /** What it is served for: a DNS name or an IP address. */
  name: string;
  notAfter: Date;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** Milliseconds before the end from which on there are warnings; what renews itself has done so long before. */
const WARNING_TIME = 14 * DAY;

/** Whole days until `date`, below 0 when it is past. */
export function daysUntil(date: Date, now: number): number {
  return Math.floor((date.getTime() - now) / DAY);
}

/** Warns of certificates that end soon: once a day and certificate, and at once when a new one ends soon as well. */
export class ExpiryWatch {
  readonly #read: () => readonly CertificateExpiry[];
  readonly #logger: Logger;
  readonly #timer: NodeJS.Timeout;
  /** By name, when which end was warned of. */
  readonly #warned = new Map<string, { notAfter: number; at: number }>();

  constructor(read: () => readonly CertificateExpiry[], logger: Logger) {
    this.#read = read;
    this.#logger = logger;
    // Hourly against the wall clock: a timer of days would run by another clock when this one is set.
    this.#timer = setInterval(() => this.check(), HOUR).unref();
  }

  /** Looks now. */
  check(now = Date.now()): void {
    const expiries = this.#read();
    for (const { name, notAfter } of expiries) {
      const end = notAfter.getTime();
      const last = this.#warned.get(name);
      const due = last === undefined || last.notAfter !== end || Math.abs(now - last.at) >= DAY;
      if (end - now >= WARNING_TIME || !due) continue;
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
      this.#logger.warn({}, `certificate of ${name} expired on ${date}: clients refuse it; put a new one in its place`);
    } else {
      this.#logger.warn({}, `certificate of ${name} expires on ${date}, in ${days === 1 ? '1 day' : `${days} days`}`);
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
