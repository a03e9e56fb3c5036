/** The query of a request target. */
import { parseRequestPath } from './target.js';

/**
 * The first value of a parameter, as Go reads it: pairs with a semicolon or a malformed escape do not count.
 *
 * @param target - a request target, as `/path?name=value`
 * @returns undefined when there is no such parameter
 */
export function queryValue(target: string, name: string): string | undefined {
  return queryPairs(parseRequestPath(target)?.query ?? '').find(([key]) => key === name)?.[1];
}

/** All pairs of a query, with or without its question mark, in their order. */
export function queryPairs(query: string): [name: string, value: string][] {
  const pairs = query.replace(/^\?/, '').split('&');
  return pairs.flatMap((pair) => {
    if (pair === '' || pair.includes(';')) return [];
    const equals = pair.indexOf('=');
    const name = unescapeQuery(equals < 0 ? pair : pair.slice(0, equals));
    const value = unescapeQuery(equals < 0 ? '' : pair.slice(equals + 1));
    return name === undefined || value === undefined ? [] : [[name, value]];
  });
}

/** Names and values as a query with its question mark, sorted by name, as Go writes it. */
export function formatQuery(pairs: readonly (readonly [string, string])[]): string {
  // URLSearchParams leaves `*` as it is and escapes `~`; Go does the reverse.
  const text = new URLSearchParams(pairs.map(([name, value]): [string, string] => [name, value]));
  text.sort();
  return `?${text.toString().replaceAll('*', '%2A').replaceAll('%7E', '~')}`;
}

function unescapeQuery(text: string): string | undefined {
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) return undefined;
  const bytes = text
    .replaceAll('+', ' ')
    .replace(/%(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  // A target's bytes are read as Latin-1.
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
