/** Handles what is the same for requests to every listener, before the listener's own pages. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { parseRequestPath, type RequestPath } from '../requests/target.js';
import { sendEmpty, sendRedirect, sendText } from './answers.js';

/**
 * The requested path, as derper reads it.
 *
 * @returns undefined when the request is answered already: it asked for the server as a whole (`*`), for no path, or for one that has
 *   another spelling
 */
export function pathFor(request: IncomingMessage, response: ServerResponse): RequestPath | undefined {
  const { url = '', method } = request;
  if (url === '*') {
    if (method !== 'OPTIONS') response.setHeader('Connection', 'close');
    sendEmpty(response, method === 'OPTIONS' ? 200 : 400);
    return undefined;
  }
  const target = parseRequestPath(url);
  const isConnect = method === 'CONNECT';
  if (target === undefined || (isConnect && target.path === '')) {
    sendText(response, 404, '404 page not found');
    return undefined;
  }
  // A CONNECT is for a host, whose paths are not ours to spell.
  if (target.redirect === undefined || (isConnect && target.path !== '/debug')) return target;
  sendRedirect(request, response, 307, target.redirect);
  return undefined;
}
