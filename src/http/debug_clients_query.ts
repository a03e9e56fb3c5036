/** Reads the query of /debug/clients/. */
import { isIPv4, isIPv6 } from 'node:net';
import { parseDuration } from '../duration.js';
import { addressBytes, addressOf, canonicalAddress } from '../ip_address.js';
import { PublicKey } from '../protocol/key.js';
import { formatQuery, queryPairs } from '../requests/query.js';
import { CLIENTS_DEFAULT, CLIENTS_MAX, type ClientCursor, type ClientQuery } from '../server/client_query.js';
import { CLIENT_SORTS, type ClientSort } from '../server/client_records.js';

/** An invalid query; the message is the answer. */
export class BadQuery extends Error {}

export interface ClientsRequest {
  asJson: boolean;
  /** Undefined: show totals and forms. */
  list: ClientsListRequest | undefined;
}

export interface ClientsListRequest {
  query: ClientQuery;
  /** Whether no client can match, because no client's address has the form of the requested one. */
  matchesNothing: boolean;
  /** The filter in words. */
  title: string;
  /** The filter as parameters of a link. */
  filter: (readonly [string, string])[];
  sort: ClientSort;
  descending: boolean;
  limit: number;
}

/**
 * @param query - of the request's target
 * @param now - milliseconds since 1970
 * @throws BadQuery
 */
export function readClientsRequest(query: string, now: number): ClientsRequest {
  const pairs = queryPairs(query);
  const valuesOf = (wanted: string) => pairs.filter(([name]) => name === wanted).map(([, value]) => value);
  const first = (name: string) => valuesOf(name)[0] ?? '';
  const format = first('format');
  if (format !== '' && format !== 'json' && format !== 'html') {
    throw new BadQuery(`bad format ${quoted(format)}; want json or html`);
  }
  const asJson = format === 'json';
  const named = valuesOf('app');
  const apps = named.length === 0 ? undefined : named;
  const filters = [
    valuesOf('all').length > 0 ? ALL : undefined,
    first('ip') === '' ? undefined : ipFilter(first('ip')),
    first('cidr') === '' ? undefined : cidrFilter(first('cidr')),
    first('key') === '' ? undefined : keyFilter(first('key')),
  ].filter((filter) => filter !== undefined);
  if (filters.length > 1) throw new BadQuery('only one of all, ip, cidr, or key may be given');
  const filter = filters[0] ?? (apps && ALL);
  if (filter === undefined) return { asJson, list: undefined };
  const { sort, descending } = readSort(first('sort'));
  const limit = readLimit(first('limit'));
  const after = readCursor(sort, first('after'), first('afterconn'), now);
  const names = apps?.map((app) => (app === '' ? '(none)' : app)).join(' or ');
  const list: ClientsListRequest = {
    query: { ...filter.query, ...(apps && { apps }), sort, descending, limit, ...(after && { after }) },
    matchesNothing: filter.matchesNothing ?? false,
    title: `${filter.title}${names === undefined ? '' : ` with app ${names}`}`,
    filter: [filter.pair, ...(apps ?? []).map((app) => ['app', app] as const)],
    sort,
    descending,
    limit,
  };
  return { asJson, list };
}

interface Filter {
  query: ClientQuery;
  title: string;
  pair: readonly [string, string];
  matchesNothing?: boolean;
}

const ALL: Filter = { query: {}, title: 'all clients', pair: ['all', '1'] };

function ipFilter(text: string): Filter {
  const zone = /^([^%]*:[^%]*)%(.+)$/s.exec(text);
  const address = canonicalAddress(zone?.[1] ?? text);
  if (address === undefined)
    throw new BadQuery(`bad ip ${quoted(text)}: ParseAddr(${quoted(text)}): unable to parse IP`);
  const ip = zone === null || isIPv4(address) ? address : `${address}%${zone[2]}`;
  return { query: { ip: address }, title: `clients from ${ip}`, pair: ['ip', ip], matchesNothing: ip !== address };
}

function cidrFilter(text: string): Filter {
  const bad = (why: string) => new BadQuery(`bad cidr ${quoted(text)}: netip.ParsePrefix(${quoted(text)}): ${why}`);
  const slash = text.lastIndexOf('/');
  if (slash < 0) throw bad("no '/'");
  const [address, digits] = [text.slice(0, slash), text.slice(slash + 1)];
  if (address.includes('%')) throw bad('IPv6 zones cannot be present in a prefix');
  const ip = canonicalAddress(address);
  if (ip === undefined) throw bad(`ParseAddr(${quoted(address)}): unable to parse IP`);
  if (!/^(0|[1-9]\d*)$/.test(digits)) throw bad(`bad bits after slash: ${quoted(digits)}`);
  // IPv4 within IPv6 stays what it is, and no client has such an address.
  const isWithin = isIPv4(ip) && address.includes(':');
  const bits = Number(digits);
  if (bits > (isIPv4(ip) && !isWithin ? 32 : 128)) throw bad('prefix length out of range');
  const network = masked(ip, isIPv4(ip) && !isWithin ? bits + 96 : bits);
  const isMapped = isWithin && isIPv4(network);
  const cidr = `${isMapped ? `::ffff:${network}` : network}/${bits}`;
  return {
    query: isMapped ? {} : { cidr },
    title: `clients from ${cidr}`,
    pair: ['cidr', cidr],
    matchesNothing: isMapped,
  };
}

/** The address with all bits after the prefix (of 128) cleared. */
function masked(ip: string, bits: number): string {
  const bytes = addressBytes(ip)!;
  for (let bit = bits; bit < 128; bit++) bytes[bit >> 3]! &= ~(0x80 >> (bit & 7));
  return addressOf(bytes);
}

function keyFilter(text: string): Filter {
  const key = readKey(text, `bad key ${quoted(text)}`);
  return { query: { key }, title: `connections for ${key}`, pair: ['key', key.toString()] };
}

function readKey(text: string, problem: string): PublicKey {
  const [, hex] = /^nodekey:(.*)$/s.exec(text) ?? [];
  if (hex === undefined) throw new BadQuery(`${problem}: key hex string doesn't have expected type prefix nodekey:`);
  const size = Buffer.byteLength(hex);
  if (size !== 64) throw new BadQuery(`${problem}: key hex has the wrong size, got ${size} want 64`);
  if (!/^[0-9a-fA-F]*$/.test(hex)) throw new BadQuery(`${problem}: invalid hex character in key`);
  return PublicKey.fromHex(hex);
}

function readSort(text: string): { sort: ClientSort; descending: boolean } {
  const descending = text.startsWith('-');
  const name = text === '' ? 'key' : text.slice(descending ? 1 : 0);
  const sort = CLIENT_SORTS.find((known) => known === name);
  if (sort !== undefined) return { sort, descending };
  const names = `${CLIENT_SORTS.slice(0, -1).join(', ')}, or ${CLIENT_SORTS.at(-1)}`;
  throw new BadQuery(`bad sort ${quoted(text)}; want ${names}, optionally with a leading -`);
}

function readLimit(text: string): number {
  if (text === '') return CLIENTS_DEFAULT;
  const limit = /^[+-]?\d+$/.test(text) ? BigInt(text.replace(/^\+/, '')) : 0n;
  if (limit < 1n || limit > MAX_INT64) throw new BadQuery(`bad limit ${quoted(text)}`);
  return limit > BigInt(CLIENTS_MAX) ? CLIENTS_MAX : Number(limit);
}

function readCursor(sort: ClientSort, after: string, afterconn: string, now: number): ClientCursor | undefined {
  if (after === '') return undefined;
  const problem = `bad after ${quoted(after)} for sort by ${sort}`;
  const value = cursorValue(sort, after, problem, now);
  if (sort === 'conn' || afterconn === '') return { value };
  return { value, number: readInteger(afterconn, 'ParseInt', `bad afterconn ${quoted(afterconn)}`) };
}

function cursorValue(sort: ClientSort, text: string, problem: string, now: number): ClientCursor['value'] {
  switch (sort) {
    case 'key':
      return readKey(text, problem);
    case 'ip':
      return readAddress(text, problem);
    case 'conn':
      return readInteger(text, 'ParseInt', problem);
    case 'connected':
      return readTime(text, problem, now);
    default:
      return readInteger(text, 'ParseUint', problem);
  }
}

/** An IP address, or one with a port. */
function readAddress(text: string, problem: string): string {
  const [, host = '', digits] = /^(.*):(\d+)$/s.exec(text) ?? [];
  const bare = canonicalAddress(text);
  if (bare !== undefined) return bare;
  const ip = canonicalAddress(host.replace(/^\[(.*)\]$/s, '$1'));
  if (ip === undefined || isIPv6(ip) !== host.startsWith('[')) throw new BadQuery(`${problem}: not an ip:port`);
  if (Number(digits) > 65_535)
    throw new BadQuery(`${problem}: invalid port ${quoted(digits!)} parsing ${quoted(text)}`);
  return isIPv6(ip) ? `[${ip}]:${Number(digits)}` : `${ip}:${Number(digits)}`;
}

const MAX_INT64 = 2n ** 63n - 1n;

function readInteger(text: string, parser: 'ParseInt' | 'ParseUint', problem: string): bigint {
  const pattern = parser === 'ParseInt' ? /^[+-]?\d+$/ : /^\d+$/;
  const fail = (why: string) => new BadQuery(`${problem}: strconv.${parser}: parsing ${quoted(text)}: ${why}`);
  if (!pattern.test(text)) throw fail('invalid syntax');
  const value = BigInt(text.replace(/^\+/, ''));
  const [min, max] = parser === 'ParseInt' ? [-MAX_INT64 - 1n, MAX_INT64] : [0n, 2n * MAX_INT64 + 1n];
  if (value < min! || value > max!) throw fail('value out of range');
  return value;
}

/** Nanoseconds since 1970, from a number or from a duration before now. */
function readTime(text: string, problem: string, now: number): bigint {
  if (/^[+-]?\d+$/.test(text)) {
    const value = BigInt(text.replace(/^\+/, ''));
    if (value >= -MAX_INT64 && value <= MAX_INT64) return value;
  }
  const ago = parseDuration(text);
  if (ago === undefined || Math.abs(ago) * 1e6 > Number(MAX_INT64)) {
    throw new BadQuery(`${problem}; want Unix nanoseconds or a duration`);
  }
  return BigInt(Math.round((now - ago) * 1e6));
}

function quoted(text: string): string {
  return JSON.stringify(text);
}

/** The relative link to a page with the same filter. */
export function clientsLink(
  { filter, limit }: ClientsListRequest,
  sort: string,
  { after, asJson = false }: { after?: ClientCursor | undefined; asJson?: boolean } = {},
): string {
  const cursor: (readonly [string, string])[] = after === undefined ? [] : [['after', after.value.toString()]];
  if (after?.number !== undefined) cursor.push(['afterconn', after.number.toString()]);
  return formatQuery([
    ...cursor,
    ...filter,
    ...(asJson ? [['format', 'json'] as const] : []),
    ...(limit === CLIENTS_DEFAULT ? [] : [['limit', String(limit)] as const]),
    ['sort', sort],
  ]);
}
