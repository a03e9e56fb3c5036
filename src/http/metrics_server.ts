/** A listener of its own for metrics and debug pages. */
import type { Server } from 'node:http';
import { isUnspecified } from '../ip_address.js';
import { sendText } from './answers.js';
import { boundAccess, debugAccess } from './debug_access.js';
import { type DebugPagesOptions, debugPages } from './debug_pages.js';
import { boundedServer } from './page_server.js';
import { parseRequestPath } from './request_path.js';

export interface MetricsServerOptions extends Omit<DebugPagesOptions, 'access'> {
  /**
   * Address that it will listen on. One of this machine's addresses is itself the choice of who can reach it, and everybody who does is
   * let in, unless through a proxy. Empty, `0.0.0.0` and `::` are no such choice: there the reference's rule for debug pages holds.
   */
  host: string;
}

/**
 * Makes an `http.Server`, to be listened with, that serves the pages below `/debug/`, and Prometheus' usual `/metrics`; no DERP.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` as {@link debugPages}
 */
export function createMetricsServer({ host, ...options }: MetricsServerOptions): Server {
  const debug = debugPages({ ...options, access: isUnspecified(host) ? debugAccess() : boundAccess });
  return boundedServer((request, response) => {
    const path = parseRequestPath(request.url ?? '')?.path;
    if (path === '/metrics') request.url = '/debug/varz';
    else if (path === '/' || path === '/debug') request.url = '/debug/';
    else if (path?.startsWith('/debug/') !== true) return sendText(response, 404, '404 page not found');
    debug(request, response);
  });
}
