/** A separate listener for metrics and debug pages. */
import type { Server } from 'node:http';
import { badOption, type Checks, checkOptions, checkString } from '../checks.js';
import { isUnspecified } from '../ip_address.js';
import { checkRanges, TrustedProxies } from '../proxies.js';
import { parseRequestPath } from '../requests/target.js';
import { sendText } from './answers.js';
import { boundAccess, debugAccess } from './debug_access.js';
import { DEBUG_CHECKS, type DebugPagesOptions, debugPages } from './debug_pages.js';
import { boundedServer } from './page_server.js';

export interface MetricsServerOptions extends Omit<DebugPagesOptions, 'access'> {
  /**
   * Address that the server will listen on. With a specific address, every client that can reach it has access, except through a
   * proxy. With an empty host, `0.0.0.0` or `::`, derper's rule for debug pages applies.
   */
  host: string;
  /** Proxies that may tell the client's address, as {@link ServerOptions.trustProxy}. Default: none. */
  trustProxy?: readonly string[];
}

const { access: _byHost, ...SHOWN_CHECKS } = DEBUG_CHECKS;
const CHECKS: Checks<MetricsServerOptions> = { ...SHOWN_CHECKS, host: checkString, trustProxy: checkRanges };

/**
 * Returns an `http.Server` for the pages below `/debug/` and Prometheus' usual `/metrics`, without DERP; call its `listen()`.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` as {@link debugPages}
 */
export function createMetricsServer(options: MetricsServerOptions): Server {
  return metricsServer(options);
}

/** @param mayAccept - as {@link BoundedServerOptions.mayAccept} */
export function metricsServer(options: MetricsServerOptions, mayAccept?: () => boolean): Server {
  checkOptions(options, 'options', CHECKS);
  const { host, trustProxy, ...shown } = options;
  if (host === undefined) throw badOption('host: is missing; an empty string means every address of this machine');
  const debug = debugPages({ ...shown, access: isUnspecified(host) ? debugAccess() : boundAccess });
  return boundedServer(
    (request, response) => {
      const path = parseRequestPath(request.url ?? '')?.path;
      if (path === '/metrics') request.url = '/debug/varz';
      else if (path === '/' || path === '/debug') request.url = '/debug/';
      else if (path?.startsWith('/debug/') !== true) return sendText(response, 404, '404 page not found');
      debug(request, response);
    },
    { proxies: new TrustedProxies(trustProxy), ...(mayAccept !== undefined && { mayAccept }) },
  );
}
