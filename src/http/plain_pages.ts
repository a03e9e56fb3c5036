/** Serves plain HTTP beside HTTPS: the captive portal check, ACME validation, debug pages, and redirects to HTTPS. */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { escapeUnsafe, parseRequestPath } from '../requests/target.js';
import { isRead, sendRedirect, sendText } from './answers.js';
import { type DebugAccess, debugAccess } from './debug_access.js';
import { noContent } from './no_content.js';
import { pathFor } from './routing.js';

export interface PlainPagesOptions {
  /** The pages of HTTPS, which serve the paths that begin with `/debug` here too. */
  pages: RequestListener;
  /** Answers ACME validation requests; returns whether the request was one. Default: none. */
  challenge?: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;
  /** Who is redirected to the debug pages from `/`. Default: {@link debugAccess}, derper's rule. */
  access?: DebugAccess;
  /** Closes the connection of requests without a page here, as `home: 'none'` does. Default: false. */
  hidden?: boolean;
}

/** A name or an address, with or without a port. Other contents of a Host header must not get into a redirect. */
const HOST = /^[A-Za-z0-9._:[\]-]{1,255}$/;

/**
 * A listener for an `http.Server`'s requests. DERP and probes are not served here.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` as {@link debugAccess}
 */
export function plainPages({
  pages,
  challenge,
  access = debugAccess(),
  hidden = false,
}: PlainPagesOptions): RequestListener {
  return (request, response) => {
    if (hidden && isUnknown(request)) return void request.socket.destroy();
    const target = pathFor(request, response);
    if (target === undefined) return;
    if (target.path === '/generate_204') return noContent(request, response);
    if (target.escaped.startsWith('/debug')) return pages(request, response);
    if (challenge?.(request, response)) return;
    if (hidden && !(target.path === '/' && access(request))) return void request.socket.destroy();
    if (!isRead(request)) return sendText(response, 400, 'Use HTTPS');
    // The host of an absolute target counts, not the header's: it is what the client asked for.
    const host = target.authority ?? request.headers.host ?? '';
    if (!HOST.test(host)) return sendText(response, 400, 'Bad Request');
    const path = target.path === '/' && access(request) ? '/debug/' : target.escaped;
    sendRedirect(request, response, 302, `https://${host}${escapeUnsafe(path + target.query)}`);
  };
}

/** Whether a request has no path, or a path that only redirects to another spelling. */
function isUnknown(request: IncomingMessage): boolean {
  const target = parseRequestPath(request.url ?? '');
  return target === undefined || (target.redirect !== undefined && !target.escaped.startsWith('/debug'));
}
