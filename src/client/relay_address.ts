/** Where a relay is, as operators and programs write it: one form for `-mesh-with`, `addMeshPeer` and clients. */
import { isIPv4, isIPv6 } from 'node:net';
import { badOption } from '../checks.js';
import { canonicalHost } from '../host_name.js';

export interface RelayAddress {
  /** What log lines call it: the host as it was written, port included. */
  readonly name: string;
  /** `https://HOST[:PORT]/derp`, or with `http:`. */
  readonly url: URL;
  /** What is dialled instead of the URL's host, without port; `undefined`: the URL's host. */
  readonly dialHost: string | undefined;
}

const FORM = '[https://]HOST[:PORT][/DIALHOST][/derp], or with http://';

/** The path of DERP; it may be left out. */
const PATH = 'derp';

/**
 * Reads `[https://]HOST[:PORT][/DIALHOST][/derp]`, or the same with `http://` for a plain connection. The relay is called HOST, which its
 * certificate must be for, and found at DIALHOST, which has no port. A URL may have a query behind `/derp`.
 * @param what - begins the messages: `mesh host`
 * @throws DerpError `ERR_DERP_BAD_OPTION` naming the part that is wrong; it shows no password
 */
export function parseRelayAddress(address: string | URL, what: string): RelayAddress {
  const text = String(address);
  const bad = (reason: string) => badOption(`${what} ${JSON.stringify(withoutUser(text))}: ${reason}`);
  if (/[\s\p{Cc}]/u.test(text)) throw bad('has a space or control character; entries are not trimmed');
  const { scheme, rest } = splitScheme(text);
  if (scheme !== undefined && scheme !== 'https' && scheme !== 'http') {
    throw bad(`scheme ${scheme}: must be https or http, needs ${FORM}`);
  }
  if (rest.includes('@')) throw bad('a relay takes no user or password');
  if (rest.includes('#')) throw bad('a relay takes no fragment (#)');
  const [path = '', ...query] = rest.split('?');
  const parts = path.split('/');
  // The path of a URL is at least a slash.
  if (scheme !== undefined && parts.length === 2 && parts[1] === '') parts.pop();
  const hasPath = parts.length > 1 && parts.at(-1) === PATH;
  if (hasPath) parts.pop();
  if (query.length > 0 && !(hasPath && scheme !== undefined)) throw bad('a query needs a URL that ends with /derp');
  const [name = '', dialHost, ...more] = parts;
  if (more.length > 0) throw bad(`too many components in host tuple ${JSON.stringify(path)}, needs ${FORM}`);
  if (name === '') throw bad(`host: is empty, needs ${FORM}`);
  checkHost(name, bad);
  if (dialHost !== undefined) checkDialHost(dialHost, bad);
  const search = query.length === 0 ? '' : `?${query.join('?')}`;
  return { name, url: new URL(`${scheme ?? 'https'}://${name}/${PATH}${search}`), dialHost };
}

/** Whether a plain connection to the relay stays on this machine. */
export function isOnLoopback({ url, dialHost }: RelayAddress): boolean {
  const host = canonicalHost(dialHost ?? url.hostname) ?? '';
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/** URL writes IPv6 addresses in brackets, which are no part of the address. */
export function bareHost(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1');
}

function splitScheme(text: string): { scheme?: string; rest: string } {
  const [, scheme, rest] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/i.exec(text) ?? [];
  return scheme === undefined ? { rest: text } : { scheme: scheme.toLowerCase(), rest: rest! };
}

function withoutUser(text: string): string {
  return text.replace(/^([a-z][a-z0-9+.-]*:\/\/)?.*@/i, '$1…@');
}

type Bad = (reason: string) => Error;

/** `HOST[:PORT]`. */
function checkHost(text: string, bad: Bad): void {
  if (isIPv6(text)) throw bad(`host ${JSON.stringify(text)}: write an IPv6 address in brackets: [${text}]`);
  const [, host = '', port] = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(text) ?? [];
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) >= 1 && Number(port) <= 65_535)) {
    throw bad(`port ${JSON.stringify(port)}: must be an integer from 1 to 65535`);
  }
  if (canonicalHost(host) === undefined)
    throw bad(`host ${JSON.stringify(host === '' ? text : host)}: must be a DNS name or an IP address`);
}

function checkDialHost(text: string, bad: Bad): void {
  if (text === '') throw bad(`dial host: is empty, needs ${FORM}`);
  if (isIPv6(text) || canonicalHost(text) !== undefined) return; // without brackets, since no port can follow
  if (/^(?:\[[^\]]*\]|[^:]*):\d*$/.test(text)) {
    throw bad(`dial host ${JSON.stringify(text)}: the port belongs to the name in front of the slash`);
  }
  throw bad(`dial host ${JSON.stringify(text)}: must be a DNS name or an IP address`);
}
