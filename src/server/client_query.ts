/** What is asked of a relay about its clients. */
import { isIPv6 } from 'node:net';
import {
  arrayOf,
  badOption,
  type Checks,
  checkBoolean,
  checkOptions,
  checkString,
  integerIn,
  oneOf,
  wrong,
} from '../checks.js';
import { addressBytes, canonicalAddress } from '../ip_address.js';
import type { NativeClientQuery } from '../native.js';
import { checkPublicKey, PublicKey } from '../protocol/key.js';
import { CLIENT_SORTS, type ClientSort, type ListedClient, recordAt } from './client_records.js';

/** Clients on a page, unless more are asked for; as derper. */
export const CLIENTS_DEFAULT = 100;

/** Clients on a page; as derper. */
export const CLIENTS_MAX = 1_000;

/** Which clients, at most one of `key`, `ip` and `cidr`, in which order, and which page of them; see {@link Server.clients}. */
export interface ClientQuery {
  /** All connections of this key. */
  key?: PublicKey;
  /** Clients from this address. */
  ip?: string;
  /** Clients from this network, `192.0.2.0/24`. */
  cidr?: string;
  /** Clients with one of these app names; empty: without any. Default: whatever their name. */
  apps?: readonly string[];
  /** Default: `key`. */
  sort?: ClientSort;
  /** Default: false. */
  descending?: boolean;
  /** Clients on a page, 1 to 1,000. Default: 100. */
  limit?: number;
  /** Where the page begins: {@link ClientList.next} of the page before. Default: at the beginning. */
  after?: ClientCursor;
}

/** A place in the order of clients: behind all with this value, or behind those of them up to a connection. */
export interface ClientCursor {
  /** Of the column that is sorted by: a key, an `ip` or `ip:port`, or a number; of `connected` nanoseconds since 1970. */
  readonly value: PublicKey | string | bigint;
  /** {@link ListedClient.number}. Default: behind all connections with that value. */
  readonly number?: number | bigint;
}

/** A page of clients. */
export interface ClientList {
  /** Connections that match, those of other pages included. */
  readonly connections: number;
  /** Keys of those. */
  readonly keys: number;
  /** Connections that match and come behind this page. */
  readonly remaining: number;
  readonly clients: readonly ListedClient[];
  /** Where the next page begins; undefined: this is the last. */
  readonly next: ClientCursor | undefined;
}

const CHECKS: Checks<ClientQuery> = {
  key: checkPublicKey,
  ip: checkIp,
  cidr: checkString,
  apps: arrayOf(checkString),
  sort: oneOf(CLIENT_SORTS),
  descending: checkBoolean,
  limit: integerIn({ min: 1, max: CLIENTS_MAX }),
  after: checkCursor,
};

/** The numbers are those of `ClientFilter` in native/core/client_listing.h. */
const FILTER = { all: 0, prefix: 1, key: 2 } as const;

/** @throws DerpError `ERR_DERP_BAD_OPTION` */
export function nativeQuery(query: ClientQuery): NativeClientQuery {
  checkOptions(query, 'query', CHECKS);
  const { key, ip, cidr, apps = [], sort = 'key', descending = false, limit = CLIENTS_DEFAULT, after } = query;
  if ([key, ip, cidr].filter((filter) => filter !== undefined).length > 1) {
    throw badOption('query: at most one of key, ip and cidr may be given');
  }
  return {
    ...(key !== undefined ? { filter: FILTER.key, key: key.bytes } : networkFilter(ip, cidr)),
    apps,
    sort: CLIENT_SORTS.indexOf(sort),
    descending,
    limit,
    ...(after !== undefined && cursorFields(after, sort)),
  };
}

function networkFilter(ip: string | undefined, cidr: string | undefined) {
  const network = ip !== undefined ? { ip: canonicalAddress(ip)!, bits: undefined } : cidr && parseCidr(cidr);
  if (!network) return { filter: FILTER.all };
  const prefix = addressBytes(network.ip)!;
  const bits = network.bits ?? (isIPv6(network.ip) ? 128 : 32);
  return { filter: FILTER.prefix, prefix, prefixBits: isIPv6(network.ip) ? bits : 96 + bits };
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` */
function parseCidr(text: string): { ip: string; bits: number } {
  const [, address = '', bits = ''] = /^(.*)\/(0|[1-9]\d{0,2})$/s.exec(text) ?? [];
  const ip = canonicalAddress(address);
  // Of IPv4 within IPv6 it is unclear which of the two is meant.
  if (ip === undefined || isIPv6(ip) !== address.includes(':') || Number(bits) > (isIPv6(ip) ? 128 : 32)) {
    throw badOption(`cidr ${JSON.stringify(text)}: needs an address and a prefix length, as 192.0.2.0/24`);
  }
  return { ip, bits: Number(bits) };
}

function cursorFields({ value, number }: ClientCursor, sort: ClientSort) {
  const place = typeof value === 'string' ? addressPlace(value) : value;
  const fits = sort === 'key' ? place instanceof PublicKey : (sort === 'ip') === (typeof place === 'object');
  if (!fits || (sort !== 'key' && place instanceof PublicKey)) {
    const wanted = sort === 'key' ? 'a PublicKey' : sort === 'ip' ? 'an address' : 'a bigint';
    throw badOption(`after.value: must be ${wanted} for the order by ${sort}`);
  }
  return {
    after: recordAt({ sort, value: place, number: number === undefined ? undefined : BigInt(number) }),
    afterHasNumber: number !== undefined,
    afterHasPort: typeof place === 'object' && 'port' in place && place.port !== undefined,
  };
}

function addressPlace(text: string): { ip: string; port: number | undefined } {
  const whole = canonicalAddress(text);
  if (whole !== undefined) return { ip: whole, port: undefined };
  const [, bracketed, plain, digits] = /^(?:\[([^\]]*:[^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const ip = canonicalAddress(bracketed ?? plain ?? '');
  const port = Number(digits);
  if (ip === undefined || port > 65_535) {
    throw badOption(`after.value ${JSON.stringify(text)}: needs ip or ip:port`);
  }
  return { ip, port };
}

function checkIp(value: unknown, name: string): void {
  checkString(value, name);
  if (canonicalAddress(value) === undefined) throw badOption(`${name} ${JSON.stringify(value)}: is not an IP address`);
}

function checkCursor(value: unknown, name: string): void {
  if (typeof value !== 'object' || value === null) wrong(name, value, 'a place, as next of the page before');
  const { value: place, number } = value as ClientCursor;
  if (typeof place !== 'string' && typeof place !== 'bigint') checkPublicKey(place, `${name}.value`);
  const isNumber = typeof number === 'bigint' || Number.isSafeInteger(number);
  if (number !== undefined && !isNumber) wrong(`${name}.number`, number, 'an integer');
}

/** The place of a client in an order. */
export function cursorOf(client: ListedClient, sort: ClientSort): ClientCursor {
  const number = client.number;
  switch (sort) {
    case 'key':
      return { value: client.key, number };
    case 'ip':
      return { value: client.address, number };
    case 'conn':
      return { value: BigInt(number) };
    case 'connected':
      return { value: client.connectedAt, number };
    case 'rx':
      return { value: BigInt(client.receivedBytes), number };
    case 'tx':
      return { value: BigInt(client.sentBytes), number };
    case 'rxpkts':
      return { value: BigInt(client.receivedPackets), number };
    case 'txpkts':
      return { value: BigInt(client.sentPackets), number };
  }
}
