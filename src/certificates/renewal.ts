/** When a certificate is to be replaced. */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Longest before the end at which a certificate is renewed. */
const MAX_LEAD = 30 * DAY;

/** A failed attempt to get a first certificate: the wait before the next, which doubles. */
const FIRST_RETRY = MINUTE;
const MAX_RETRY = 30 * MINUTE;

/** Longest that a server may make us wait. */
const MAX_RETRY_AFTER = DAY;

interface Lifetime {
  readonly notBefore: number;
  readonly notAfter: number;
}

/**
 * The moment (ms since 1970) to renew: a third of the life, 30 days at most, before the end; up to a tenth of that, an hour at
 * most, later, so that many relays do not ask at once.
 *
 * @param random - 0 to 1
 */
export function renewalTime({ notBefore, notAfter }: Lifetime, random: number): number {
  const lead = Math.min((notAfter - notBefore) / 3, MAX_LEAD);
  return notAfter - lead + random * Math.min(lead / 10, HOUR);
}

/** Milliseconds after the `failures`-th failure in a row while there is no certificate: 1 min, doubling to 30 min. */
export function firstRetryDelay(failures: number, retryAfter = 0): number {
  return atLeast(retryAfter, Math.min(FIRST_RETRY * 2 ** (failures - 1), MAX_RETRY));
}

/**
 * Milliseconds after a failed renewal, while the old certificate serves: 30 to 60 min.
 *
 * @param random - 0 to 1
 */
export function renewalRetryDelay(random: number, retryAfter = 0): number {
  return atLeast(retryAfter, (1 + random) * MAX_RETRY);
}

function atLeast(retryAfter: number, delay: number): number {
  return Math.max(delay, Math.min(retryAfter, MAX_RETRY_AFTER));
}
