import type { IncomingMessage } from 'node:http';

/** The IP address that a request comes from: never an IPv4-mapped IPv6 address, and without a zone. Empty once the connection is gone. */
export function clientAddress(request: IncomingMessage): string {
  return (request.socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
}
