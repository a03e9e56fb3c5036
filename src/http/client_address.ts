import type { IncomingMessage } from 'node:http';

/** The IP address that a request comes from: IPv4 never within IPv6, no zone. Empty once the connection is gone. */
export function clientAddress(request: IncomingMessage): string {
  return (request.socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
}
