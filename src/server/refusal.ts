/** Answers to requests that the relay does not serve, on sockets that no `http.Server` owns any more. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { isDerpPath } from '../handshake/request.js';
import { closeAfter } from '../requests/last_answer.js';

/** Answers an upgrade that has no other listener, and would otherwise stay unanswered. */
export function refuseUpgrade(request: IncomingMessage, socket: Duplex): void {
  if (isDerpPath(request.url ?? '')) refuseDerp(socket);
  else refuse(socket, '404 Not Found', '404 page not found\n');
}

/** Answers a request that should have been a DERP upgrade. */
export function refuseDerp(socket: Duplex): void {
  refuse(socket, '426 Upgrade Required', 'DERP requires connection upgrade\n');
}

/** Answers and closes; what the client still sends does not matter. */
function refuse(socket: Duplex, status: string, body: string): void {
  closeAfter(
    socket,
    `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `X-Content-Type-Options: nosniff\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
  );
}
