import { BlockList, isIP } from 'node:net';

/** Ranges of IP addresses. */
export class AddressRanges {
  readonly #list = new BlockList();

  /** @param ranges - well formed: `192.0.2.0/24`, `2001:db8::/32`, or an address alone */
  constructor(ranges: readonly string[]) {
    for (const range of ranges) {
      const [address = '', prefix] = range.split('/');
      if (prefix === undefined) this.#list.addAddress(address, familyOf(address));
      else this.#list.addSubnet(address, Number(prefix), familyOf(address));
    }
  }

  /** Whether a text is an IP address of these ranges. */
  has(address: string): boolean {
    return isIP(address) !== 0 && this.#list.check(address, familyOf(address));
  }
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 4 ? 'ipv4' : 'ipv6';
}
