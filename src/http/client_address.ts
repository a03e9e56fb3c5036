/** Where a request comes from, which behind a trusted proxy is not where its connection comes from. */
import type { IncomingMessage } from 'node:http';
import { unmapped } from '../ip_address.js';
import type { HeaderList, TrustedProxies } from '../proxies.js';

/** Clients of requests, as trusted proxies named them. */
const clients = new WeakMap<IncomingMessage, string>();

/** The IP address of a request's client: never an IPv4-mapped IPv6 address, and without a zone. Empty once the connection is gone. */
export function clientAddress(request: IncomingMessage): string {
  return clients.get(request) ?? connectionAddress(request);
}

/** Whether a request was passed on by someone who may have changed it: a proxy that is not trusted. */
export function isForwarded(request: IncomingMessage): boolean {
  return !clients.has(request) && (request.headers['x-forwarded-for'] ?? '') !== '';
}

/** Notes a request's client, if a trusted proxy names it. */
export function noteClient(request: IncomingMessage, proxies: TrustedProxies): void {
  const client = proxies.clientOf(connectionAddress(request), headersOf(request));
  if (client !== undefined) clients.set(request, client);
}

/** The headers of a request, as they came. */
export function headersOf({ rawHeaders }: IncomingMessage): HeaderList {
  return Array.from({ length: rawHeaders.length / 2 }, (_, i) => [rawHeaders[2 * i]!, rawHeaders[2 * i + 1]!] as const);
}

function connectionAddress(request: IncomingMessage): string {
  return unmapped(request.socket.remoteAddress ?? '').replace(/%.*$/, '');
}
