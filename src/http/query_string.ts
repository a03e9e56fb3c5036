/** Query strings as Go reads them. */

/** Values by name, in the order of the query. Skips pairs with a semicolon or a malformed escape. */
export function parseQueryString(query: string): Map<string, string[]> {
  const values = new Map<string, string[]>();
  for (const pair of query.replace(/^\?/, '').split('&')) {
    if (pair === '' || pair.includes(';')) continue;
    const mark = pair.indexOf('=');
    const name = unescapeQuery(mark < 0 ? pair : pair.slice(0, mark));
    const value = unescapeQuery(mark < 0 ? '' : pair.slice(mark + 1));
    if (name === undefined || value === undefined) continue;
    values.set(name, [...(values.get(name) ?? []), value]);
  }
  return values;
}

function unescapeQuery(text: string): string | undefined {
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) return undefined;
  const latin1 = text
    .replaceAll('+', ' ')
    .replace(/%(..)/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));
  return Buffer.from(latin1, 'latin1').toString();
}

/** Names and values as a query string, sorted by name. */
export function formatQueryString(pairs: readonly (readonly [string, string])[]): string {
  // URLSearchParams leaves `*` as it is and escapes `~`; Go does the reverse.
  const text = new URLSearchParams(pairs.map(([name, value]): [string, string] => [name, value]));
  text.sort();
  return `?${text.toString().replaceAll('*', '%2A').replaceAll('%7E', '~')}`;
}
