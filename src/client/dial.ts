import { connect, type Socket } from 'node:net';
import { DerpError } from '../errors.js';

const DEFAULT_PORTS: Record<string, number> = { 'http:': 80, 'https:': 443 };
const FORM = 'http(s)://HOST[:PORT]/derp';

/**
 * Checks the URL of a relay.
 * @throws DerpError `ERR_DERP_BAD_OPTION`
 */
export function parseRelayUrl(text: string | URL): URL {
  if (typeof text === 'string' && !URL.canParse(text)) throw badUrl(`${JSON.stringify(text)} is no URL, needs ${FORM}`);
  const url = new URL(text);
  if (DEFAULT_PORTS[url.protocol] === undefined) throw badUrl(`${displayUrl(url)}: needs ${FORM}`);
  if (url.username !== '' || url.password !== '') throw badUrl(`${displayUrl(url)}: a relay takes no user or password`);
  return url;
}

/** The URL without anything that could be a secret, for messages. */
export function displayUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

/** Begins to connect to the relay's host, or to `dialHost` with the same port; a failure is the socket's 'error' event. */
export function dial(url: URL, dialHost: string = url.hostname): Socket {
  const port = url.port === '' ? DEFAULT_PORTS[url.protocol]! : Number(url.port);
  return connect({ host: bareHost(dialHost), port, noDelay: true });
}

/** URL writes IPv6 addresses in brackets, which are no part of the address. */
export function bareHost(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1');
}

function badUrl(message: string): DerpError {
  return new DerpError('ERR_DERP_BAD_OPTION', message);
}
