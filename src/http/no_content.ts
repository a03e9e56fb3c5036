import type { IncomingMessage, ServerResponse } from 'node:http';

/** The characters and length that the captive portal check's challenge may have. */
const CHALLENGE = /^[A-Za-z0-9.:_-]{1,64}$/;

/** Clients detect captive portals with this page: a portal does not know the answer to the challenge. */
export function noContent(request: IncomingMessage, response: ServerResponse): void {
  response.setHeader('Cache-Control', 'no-cache, no-store, must-revalidate, no-transform, max-age=0');
  const challenge = request.headers['x-tailscale-challenge'];
  if (typeof challenge === 'string' && CHALLENGE.test(challenge)) {
    response.setHeader('X-Tailscale-Response', `response ${challenge}`);
  }
  response.writeHead(204).end();
}
