import { connect, type Socket } from 'node:net';
import { DerpError } from '../errors.js';

const DEFAULT_HTTP_PORT = 80;

/**
 * Checks the URL of a relay.
 * @throws DerpError `ERR_DERP_BAD_OPTION`
 */
export function parseRelayUrl(text: string | URL): URL {
  if (typeof text === 'string' && !URL.canParse(text))
    throw badUrl(`${JSON.stringify(text)} is no URL, needs http://HOST[:PORT]/derp`);
  const url = new URL(text);
  if (url.protocol === 'https:') {
    throw badUrl(`${displayUrl(url)}: TLS comes with a later release; until then use http:// on trusted networks`);
  }
  if (url.protocol !== 'http:') throw badUrl(`${displayUrl(url)}: needs http://HOST[:PORT]/derp`);
  if (url.username !== '' || url.password !== '') throw badUrl(`${displayUrl(url)}: a relay takes no user or password`);
  return url;
}

/** The URL without anything that could be a secret, for messages. */
export function displayUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

/** Begins to connect to the relay's host, or to `dialHost` with the same port; a failure is the socket's 'error' event. */
export function dial(url: URL, dialHost: string = url.hostname): Socket {
  // URL writes IPv6 addresses in brackets, which are no part of the address.
  const host = dialHost.replace(/^\[(.*)\]$/, '$1');
  return connect({ host, port: url.port === '' ? DEFAULT_HTTP_PORT : Number(url.port), noDelay: true });
}

function badUrl(message: string): DerpError {
  return new DerpError('ERR_DERP_BAD_OPTION', message);
}
