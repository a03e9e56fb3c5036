/** Addresses that flags name, read as Go reads them. */
import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { canonicalAddress, isUnspecified, withPort } from '../ip_address.js';
import { StartError } from './exit.js';
import type { InheritedSocket } from './sockets.js';

/** Where to listen. */
export interface Address {
  /** The flag that gave the address, for errors. */
  flag: string;
  /** IP address or name, as written; empty for all interfaces. */
  host: string;
  port: number;
  /** Sockets that are listened on in place of host and port, which are those of the first. */
  sockets?: readonly Pick<InheritedSocket, 'fd' | 'address'>[];
}

/** The system's list of port names. */
const SERVICES_FILE = '/etc/services';
/** Port names that work without that file. */
const SERVICES = new Map([
  ['http', 80],
  ['https', 443],
]);

/**
 * Reads `:port`, `host:port` or `[ip]:port`, the port as a number or by its name.
 *
 * @throws {@link StartError} saying what is wrong with it
 */
export function parseAddress(flag: string, text: string): Address {
  const fail = (reason: string) =>
    new StartError(
      `${flag} ${JSON.stringify(text)}: invalid server address: ${reason}; write ":port", "ip:port" or "[ip]:port"`,
    );
  const colon = text.lastIndexOf(':');
  if (colon < 0 || text.endsWith(']')) throw fail('missing port in address');
  const portText = text.slice(colon + 1);
  const port = portOf(portText);
  if (port === undefined) throw fail(`${JSON.stringify(portText)} is not a port`);
  return { flag, host: parseHost(text.slice(0, colon), fail), port };
}

function portOf(text: string): number | undefined {
  if (!/^\+?\d+$/.test(text)) return SERVICES.get(text) ?? systemService(text);
  return Number(text) <= 65_535 ? Number(text) : undefined;
}

/** The TCP port with this name or alias on this system. */
function systemService(name: string): number | undefined {
  if (!/^[A-Za-z][\w.-]*$/.test(name)) return undefined;
  for (const line of servicesFile().split('\n')) {
    const [first, port = '', ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/);
    const [, number] = /^(\d+)\/tcp$/.exec(port) ?? [];
    if (number !== undefined && (first === name || aliases.includes(name))) return Number(number);
  }
  return undefined;
}

function servicesFile(): string {
  try {
    return readFileSync(SERVICES_FILE, 'latin1');
  } catch {
    return ''; // small containers have no such file: only the names above work
  }
}

function parseHost(text: string, fail: (reason: string) => StartError): string {
  const bracketed = text.match(/^\[(.*)\]$/)?.[1];
  if (bracketed !== undefined) {
    if (isIP(bracketed) !== 6) throw fail(`${JSON.stringify(bracketed)} is not an IPv6 address`);
    return bracketed;
  }
  if (text.includes(':')) throw fail('too many colons in address; IPv6 addresses need brackets');
  if (/[\s[\]/@]/.test(text)) throw fail(`${JSON.stringify(text)} is not a host`);
  return text;
}

/** The form that {@link parseAddress} reads. */
export function formatAddress({ host, port }: Pick<Address, 'host' | 'port'>): string {
  return withPort(host, port);
}

/**
 * The IP address to listen on. For a name it is one of its addresses, preferably IPv4.
 *
 * @returns `undefined`: all interfaces of both families
 * @throws {@link StartError} when a name has no address
 */
export async function listenHost(address: Address): Promise<string | undefined> {
  const { host } = address;
  if (isUnspecified(host)) return undefined;
  if (isIP(host) !== 0) return canonicalAddress(host) ?? host; // an address with a zone has only one spelling
  try {
    const found = await lookup(host, { all: true });
    return (found.find(({ family }) => family === 4) ?? found[0])?.address;
  } catch (error) {
    throw listenError(address, error);
  }
}

/** The system's errors of listening, in words. */
const LISTEN_ERRORS = new Map([
  ['EADDRINUSE', 'address already in use'],
  ['EACCES', 'permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)'],
  ['EADDRNOTAVAIL', 'address not available on this machine'],
  ['EAFNOSUPPORT', 'this machine does not support the address family'],
  ['EINVAL', 'not an address to listen on (a link-local one needs its zone, as in [fe80::1%eth0]:443)'],
  ['ENOTFOUND', 'no such host'],
  ['EAI_AGAIN', 'the name server does not answer'],
]);

/** Names the flag, its address, and why derplane cannot listen there. */
export function listenError(address: Address, error: unknown): StartError {
  const reason = LISTEN_ERRORS.get((error as NodeJS.ErrnoException).code ?? '') ?? (error as Error).message;
  return new StartError(`${address.flag} ${formatAddress(address)}: ${reason}`, { cause: error });
}
