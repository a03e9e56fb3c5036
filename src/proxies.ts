/** Proxies in front of a relay, and the clients that they name. */
import { isIP, type Socket } from 'node:net';
import { AddressRanges } from './address_ranges.js';
import { badOption, type Check, checkString } from './checks.js';
import { canonicalAddress, hostOf } from './ip_address.js';

/** Replaces a socket's remote address by the one that a proxy named. @param address - `ip:port` */
export function setRemoteAddress(socket: Socket, address: string): void {
  Object.defineProperties(socket, {
    remoteAddress: { value: hostOf(address), configurable: true },
    remotePort: { value: Number(/\d+$/.exec(address)?.[0]), configurable: true },
  });
}

/** Ranges of one relay; each costs a comparison per connection. */
const MAX_RANGES = 256;

/** Headers of a request by their names, which may repeat. */
export type HeaderList = readonly (readonly [name: string, value: string])[];

/** The proxies that may name a client's address. */
export class TrustedProxies {
  /** As they were given: `192.0.2.0/24`, `2001:db8::/32`, `192.0.2.1`. */
  readonly ranges: readonly string[];
  readonly #addresses: AddressRanges;

  /** @param ranges - checked by {@link checkRanges} */
  constructor(ranges: readonly string[] = []) {
    this.ranges = ranges;
    this.#addresses = new AddressRanges(ranges);
  }

  /** @param address - an IP address as text */
  has(address: string): boolean {
    return this.ranges.length > 0 && this.#addresses.has(canonicalAddress(address.replace(/%.*$/, '')) ?? '');
  }

  /**
   * The client of a request that a proxy passed on: in `X-Forwarded-For` the rightmost address that is not a trusted proxy, since everything
   * left of it is the client's own claim; without that header `X-Real-IP`.
   *
   * @param from - IP address that the request came from
   * @returns undefined when that is not a trusted proxy, or it names no client
   */
  clientOf(from: string, headers: HeaderList): string | undefined {
    if (!this.has(from)) return undefined;
    const forwarded = valuesOf(headers, 'x-forwarded-for').join(',');
    if (forwarded.trim() === '') return addressIn(valuesOf(headers, 'x-real-ip').at(-1) ?? '');
    let client: string | undefined;
    for (const hop of forwarded.split(',').reverse()) {
      const address = addressIn(hop);
      if (address === undefined) return client;
      client = address;
      if (!this.has(address)) return client;
    }
    return client;
  }
}

/** No proxy is trusted. */
export const NO_PROXIES = new TrustedProxies();

/** An array of address ranges, `192.0.2.0/24` or a single address. */
export const checkRanges: Check = (value, name) => {
  if (!Array.isArray(value)) throw badOption(`${name}: must be an array of address ranges`);
  if (value.length > MAX_RANGES) throw badOption(`${name}: has ${value.length} ranges, may have ${MAX_RANGES}`);
  value.forEach((range, index) => {
    checkString(range, `${name}[${index}]`);
    if (!isRange(range)) {
      throw badOption(
        `${name}[${index}] ${JSON.stringify(range)}: must be an address range as 192.0.2.0/24 or 2001:db8::/32, or an IP address`,
      );
    }
  });
};

function isRange(text: string): boolean {
  const [address = '', prefix, ...more] = text.split('/');
  const family = isIP(address);
  if (family === 0 || address.includes('%') || more.length > 0) return false;
  return prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128));
}

function valuesOf(headers: HeaderList, wanted: string): string[] {
  return headers.filter(([name]) => name.toLowerCase() === wanted).map(([, value]) => value);
}

/** The IP address of a hop, which some proxies write with a port: `192.0.2.1:80`, `[2001:db8::1]:80`. */
function addressIn(hop: string): string | undefined {
  const text = hop.trim();
  const bare = /^\[(.*)\](?::\d+)?$/.exec(text)?.[1] ?? /^([^:]*):\d+$/.exec(text)?.[1] ?? text;
  return canonicalAddress(bare);
}
