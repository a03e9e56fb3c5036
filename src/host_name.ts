/** Names of hosts, as flags, URLs, certificates and TLS greetings spell them. */
import { isIP } from 'node:net';
import { domainToASCII } from 'node:url';
import { canonicalAddress } from './ip_address.js';

/** Labels of at most 63 characters. Not only those of the Internet's zones: single labels and underscores occur in private ones. */
const DNS_NAME = /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

/** What ends a host in a URL, or cannot be in one. */
const NOT_IN_HOST = /[\0- "#%/:<>?@[\\\]^`{|}\x7f]/;

/**
 * The one spelling of a host: a DNS name in lower case, ASCII (IDNA) and without its trailing dot; an address as {@link canonicalAddress}
 * writes it, without brackets. Two texts name the same host exactly when this gives the same.
 *
 * @returns `undefined` when it is neither a DNS name nor an IP address
 */
export function canonicalHost(text: string): string | undefined {
  const bracketed = /^\[(.*)\]$/s.exec(text)?.[1];
  const address = canonicalAddress(bracketed ?? text);
  if (bracketed !== undefined) return bracketed.includes(':') ? address : undefined;
  if (address !== undefined) return address;
  if (NOT_IN_HOST.test(text)) return undefined;
  const name = domainToASCII(text.replace(/\.$/, ''));
  // Browsers take `127.1` and `0x7f.1` for addresses; other software does not.
  return DNS_NAME.test(name) && isIP(name) === 0 ? name : undefined;
}

/** The IP address that a host is, as {@link canonicalHost} writes it; `undefined` for a name and for invalid text. */
export function addressOf(text: string): string | undefined {
  const host = canonicalHost(text);
  return host === undefined || isIP(host) === 0 ? undefined : host;
}

/** The host of a `Host` header, as {@link canonicalHost} writes it: `example.com` of `Example.com:80`, `::1` of `[::1]:80`. */
export function hostOfHeader(header: string): string | undefined {
  return canonicalHost(/^(\[[^\]]*\]|[^:]*)(?::\d*)?$/.exec(header)?.[1] ?? '');
}
