/** IP addresses as texts. */
import { BlockList, isIP, isIPv4 } from 'node:net';

/** Networks whose addresses are shared, or unreachable from outside (RFC 6890 and its kin). */
const NOT_PUBLIC = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const) {
  NOT_PUBLIC.addSubnet(network, prefix, 'ipv4');
}
/** All that is public in IPv6 lies in it. */
const GLOBAL_IPV6 = new BlockList();
GLOBAL_IPV6.addSubnet('2000::', 3, 'ipv6');
NOT_PUBLIC.addSubnet('2001:db8::', 32, 'ipv6');

/** The one way to write an address: IPv6 short and in lower case, IPv4 never within IPv6, no zone. `undefined` for anything else. */
export function canonicalAddress(text: string): string | undefined {
  if (isIPv4(text)) return text;
  if (isIP(text) === 0 || text.includes('%')) return undefined;
  const short = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(short) ?? [];
  return high === undefined || low === undefined ? short : [high, low].flatMap(bytesOf).join('.');
}

/** An IPv4-mapped IPv6 address as Node writes it, without the mapping; anything else as it is. */
export function unmapped(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/, '');
}

/** Whether a host to listen on stands for all interfaces of both families: no host, or the unspecified address of either family. */
export function isUnspecified(host: string): boolean {
  const address = canonicalAddress(host);
  return host === '' || address === '::' || address === '0.0.0.0';
}

/** `host:port`, an IPv6 address in brackets. */
export function withPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * The 16 bytes of an address, those of IPv4 as IPv4-mapped IPv6 (`::ffff:a.b.c.d`); a zone does not count.
 *
 * @returns undefined when `text` is not an IP address
 */
export function addressBytes(text: string): Buffer | undefined {
  const address = canonicalAddress(text.replace(/%.*$/, ''));
  if (address === undefined) return undefined;
  const bytes = Buffer.alloc(16);
  if (isIPv4(address)) {
    bytes.writeUInt16BE(0xffff, 10);
    bytes.set(address.split('.').map(Number), 12);
    return bytes;
  }
  const [head = '', tail] = address.split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)));
  groups(head).forEach((group, index) => {
    bytes.writeUInt16BE(group, 2 * index);
  });
  const last = groups(tail ?? '');
  last.forEach((group, index) => {
    bytes.writeUInt16BE(group, 16 - 2 * (last.length - index));
  });
  return bytes;
}

/** Another host with the port of {@link withPort}. */
export function withHost(text: string, host: string): string {
  return withPort(host, Number(/\d*$/.exec(text)?.[0]));
}

/** The host of {@link withPort}. */
export function hostOf(text: string): string {
  return text.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
}

/** Whether the Internet could reach a canonical address. */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !NOT_PUBLIC.check(address, 'ipv4');
  return GLOBAL_IPV6.check(address, 'ipv6') && !NOT_PUBLIC.check(address, 'ipv6');
}

function bytesOf(group: string): number[] {
  const value = Number.parseInt(group, 16);
  return [value >> 8, value & 0xff];
}

/** The reverse of {@link addressBytes}. */
export function addressOf(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(2 * index).toString(16));
  return canonicalAddress(groups.join(':'))!;
}
