import { connect, type Socket } from 'node:net';
import { bareHost } from './relay_address.js';

const DEFAULT_PORTS: Record<string, number> = { 'http:': 80, 'https:': 443 };

/** The URL without anything that could be a secret, for messages. */
export function displayUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

/** Begins to connect to the relay's host, or to `dialHost` with the same port; a failure is the socket's 'error' event. */
export function dial(url: URL, dialHost: string = url.hostname): Socket {
  const port = url.port === '' ? DEFAULT_PORTS[url.protocol]! : Number(url.port);
  return connect({ host: bareHost(dialHost), port, noDelay: true });
}
