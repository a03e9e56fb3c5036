/** The names that bootstrap DNS answers, and their lookup. */
import { Resolver } from 'node:dns/promises';
import { allAddresses } from '../all_addresses.js';
import { abortable } from '../client/abortable.js';
import type { Logger } from '../log.js';

/** One entry of a list of names. */
export interface BootstrapName {
  readonly name: string;
  /** DNS name of a TXT record that holds the rollout percentage, an integer from 0 to 100. Undefined: all clients get an answer. */
  readonly percentageRecord: string | undefined;
}

/** What a lookup found for one name. */
export interface ResolvedName {
  /** At most {@link MAX_ADDRESSES}. */
  readonly addresses: readonly string[];
  /** 0 to 100. */
  readonly percentage: number;
}

/** Looks names up; the default asks the system's resolver, as other programs do. */
export interface NameResolver {
  /** All IPv4 and IPv6 addresses. */
  addresses(name: string): Promise<string[]>;
  /** TXT records, each joined into one string. */
  texts(name: string): Promise<string[]>;
}

/** Maximum addresses per name; the rest is left out, which bounds the size of an answer. */
export const MAX_ADDRESSES = 256;
/** Maximum TXT records read per name. */
const MAX_TEXTS = 64;
/** Milliseconds and attempts of one TXT query. */
const TXT_QUERY = { timeout: 5_000, tries: 3 };

export const systemResolver: NameResolver = {
  addresses: allAddresses,
  async texts(name) {
    return (await new Resolver(TXT_QUERY).resolveTxt(name)).map((pieces) => pieces.join(''));
  },
};

/** Reads a list as derper does: names separated by commas, not trimmed, each with an optional `/RECORD`. */
export function parseNames(list: string): BootstrapName[] {
  if (list === '') return [];
  return list.split(',').map((entry) => {
    const slash = entry.indexOf('/');
    if (slash < 0) return { name: entry, percentageRecord: undefined };
    return { name: entry.slice(0, slash), percentageRecord: entry.slice(slash + 1) || undefined };
  });
}

/**
 * Looks up all names of a list, one after another. A name that fails is left out and logged.
 *
 * @param signal - ends the lookups that have not answered yet; their names are left out
 */
export async function resolveNames(
  names: readonly BootstrapName[],
  resolver: NameResolver,
  logger: Logger,
  signal: AbortSignal,
): Promise<Map<string, ResolvedName>> {
  const found = new Map<string, ResolvedName>();
  for (const { name, percentageRecord } of names) {
    const addresses = await attempt(name, () => resolver.addresses(name), logger, signal);
    if (addresses === undefined || addresses.length === 0) continue;
    if (addresses.length > MAX_ADDRESSES) {
      logger.warn(
        {},
        `bootstrap DNS lookup ${JSON.stringify(name)}: ${addresses.length} addresses, using ${MAX_ADDRESSES}`,
      );
    }
    const percentage = percentageRecord === undefined ? 100 : await rollout(percentageRecord, resolver, logger, signal);
    found.set(name, { addresses: addresses.slice(0, MAX_ADDRESSES), percentage });
  }
  return found;
}

/** The last record that holds an integer from 0 to 100; 0 without one. */
async function rollout(record: string, resolver: NameResolver, logger: Logger, signal: AbortSignal): Promise<number> {
  const texts = (await attempt(record, () => resolver.texts(record), logger, signal)) ?? [];
  const percentages = texts
    .slice(0, MAX_TEXTS)
    .filter((text) => /^[+-]?\d+$/.test(text))
    .map(Number)
    .filter((percentage) => percentage >= 0 && percentage <= 100);
  return percentages.at(-1) ?? 0;
}

async function attempt<T>(
  name: string,
  look: () => Promise<T>,
  logger: Logger,
  signal: AbortSignal,
): Promise<T | undefined> {
  try {
    return await abortable(look(), signal);
  } catch (error) {
    // Not logged: the relay is closing on purpose.
    if (signal.reason !== CLOSED) {
      const { message } = (signal.aborted ? signal.reason : error) as Error;
      logger.warn({}, `bootstrap DNS lookup ${JSON.stringify(name)}: ${message}`);
    }
    return undefined;
  }
}

/** The abort reason when the relay closes during a lookup. */
export const CLOSED = Symbol('closed');
