/** Who may see the debug pages: this machine, the tailnet, and addresses that the environment names. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { AddressRanges } from '../address_ranges.js';
import { wrong } from '../checks.js';
import { DerpError } from '../errors.js';
import { queryValue } from '../requests/query.js';
import { clientAddress, isForwarded } from './client_address.js';

/** Whether a request may see the debug pages. */
export type DebugAccess = (request: IncomingMessage) => boolean;

/**
 * derper's rule: loopback and Tailscale addresses, `TS_ALLOW_DEBUG_IP` (one address), `TS_DEBUG_TRUSTED_CIDRS` (separated by
 * commas), and never a request with `X-Forwarded-For`, which has an untrusted origin. A GET request whose query has `debugkey=` with the
 * contents of the file `TS_DEBUG_KEY_PATH` always passes.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` when a variable contains an invalid address
 */
export function debugAccess(env: NodeJS.ProcessEnv = process.env): DebugAccess {
  if (typeof env !== 'object' || env === null) wrong('env', env, 'an object of variables, as process.env');
  const others = allowed(env);
  const keyFile = env['TS_DEBUG_KEY_PATH'] ?? '';
  return (request) => {
    if (keyFile !== '' && request.method === 'GET' && provesKey(request.url ?? '', keyFile)) return true;
    if (isForwarded(request)) return false;
    const ip = clientAddress(request);
    return LOOPBACK.has(ip) || (TAILNET.has(ip) && !NOT_TAILNET.has(ip)) || others.has(ip);
  };
}

/** Admits every request except through a proxy: binding the listener to an address is the operator's decision. */
export const boundAccess: DebugAccess = (request) => !isForwarded(request);

const LOOPBACK = new AddressRanges(['127.0.0.0/8', '::1']);
const TAILNET = new AddressRanges(['100.64.0.0/10', 'fd7a:115c:a1e0::/48']);
/** Of the shared address space this part belongs to ChromeOS' virtual machines. */
const NOT_TAILNET = new AddressRanges(['100.115.92.0/23']);

function allowed(env: NodeJS.ProcessEnv): AddressRanges {
  const single = env['TS_ALLOW_DEBUG_IP'] ?? '';
  const ranges = (env['TS_DEBUG_TRUSTED_CIDRS'] ?? '').split(',').map((part) => part.trim());
  return new AddressRanges([
    ...(single === '' ? [] : [checked('TS_ALLOW_DEBUG_IP', single, false)]),
    ...ranges.filter((range) => range !== '').map((range) => checked('TS_DEBUG_TRUSTED_CIDRS', range, true)),
  ]);
}

/** A range, or without `withPrefix` an address; without what stands behind a second slash. */
function checked(variable: string, text: string, withPrefix: boolean): string {
  const [address = '', prefix] = text.split('/');
  const family = isIP(address);
  const bits =
    prefix === undefined ? (withPrefix ? Number.NaN : 0) : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
  if (family === 0 || !(bits <= (family === 4 ? 32 : 128)) || (!withPrefix && prefix !== undefined)) {
    const wanted = withPrefix ? 'ranges such as 192.0.2.0/24 or 2001:db8::/32, separated by commas' : 'one IP address';
    throw new DerpError('ERR_DERP_BAD_OPTION', `${variable}: ${JSON.stringify(text)} is invalid: expected ${wanted}`);
  }
  return withPrefix ? `${address}/${bits}` : address;
}

/** The file is read each time, so that a new key needs no restart. */
function provesKey(url: string, keyFile: string): boolean {
  const offered = queryValue(url, 'debugkey') ?? '';
  if (offered === '') return false;
  let key: string;
  try {
    key = readFileSync(keyFile, 'utf8').trim();
  } catch {
    return false; // no key: the usual rule decides
  }
  return key !== '' && timingSafeEqual(digest(offered), digest(key));
}

/** Hashes give timingSafeEqual inputs of equal length. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
