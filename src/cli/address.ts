import { isIP } from 'node:net';
import { StartError } from './exit.js';

/** Where to listen. */
export interface Address {
  /** IP or name; empty for all interfaces. */
  host: string;
  port: number;
}

/** The service names that operators write instead of ports. */
const SERVICES = new Map([
  ['http', 80],
  ['https', 443],
]);

/**
 * Reads `:port`, `host:port` or `[ip]:port`, as Go does.
 *
 * @throws {@link StartError} saying what is wrong with it
 */
export function parseAddress(flag: string, text: string): Address {
  const fail = (reason: string) =>
    new StartError(`${flag} ${JSON.stringify(text)}: ${reason}; write ":port", "ip:port" or "[ip]:port"`);
  const colon = text.lastIndexOf(':');
  if (colon < 0 || text.endsWith(']')) throw fail('missing port in address');
  const portText = text.slice(colon + 1);
  const port = SERVICES.get(portText) ?? (/^\d{1,5}$/.test(portText) ? Number(portText) : Number.NaN);
  if (!(port <= 65_535)) throw fail(`${JSON.stringify(portText)} is no port`);
  return { host: parseHost(text.slice(0, colon), fail), port };
}

function parseHost(text: string, fail: (reason: string) => StartError): string {
  const bracketed = text.match(/^\[(.*)\]$/)?.[1];
  if (bracketed !== undefined) {
    if (isIP(bracketed) !== 6) throw fail(`${JSON.stringify(bracketed)} is no IPv6 address`);
    return bracketed;
  }
  if (text.includes(':')) throw fail('too many colons in address');
  return text;
}

/** The form that {@link parseAddress} reads. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
