/**
 * The relay's HTTP endpoints beside DERP itself: probes, captive portal check, home page.
 *
 * If a relay serves the connection, it takes upgrades to DERP before. Other requests for `/derp` get 426.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { type Checks, checkBoolean, checkFunction, checkLogger, checkOptions, checkString, having } from '../checks.js';
import { isKnownUpgrade } from '../handshake/request.js';
import { guardedLogger, type Logger } from '../log.js';
import { LimitedLog } from '../log_limit.js';
import { parseRequestPath } from '../requests/target.js';
import { isRead, sendEmpty, sendPage, sendRedirect, sendText } from './answers.js';
import { BootstrapDns } from './bootstrap_dns.js';
import { type DebugAccess, debugAccess } from './debug_access.js';
import { type HomePage, homePage } from './home.js';
import { noContent } from './no_content.js';
import { pathFor } from './routing.js';
import { setSecurityHeaders } from './security_headers.js';

export interface PagesOptions {
  /**
   * Empty: the default page; `blank`: an empty page; an http(s) URL: a redirect there; `none`: no page at all. With `none` the
   * connection closes without an answer, unless the request is an upgrade to DERP, a probe, `/generate_204`, `/bootstrap-dns`, or
   * for a debug page by someone who may see it. Default: empty.
   */
  home?: string;
  /** Whether DERP is served; if not, `/derp` is 404. Default: true. */
  derpEnabled?: boolean;
  /** Serves paths below `/debug/`, see {@link debugPages}. Default: they are 404. */
  debug?: RequestListener;
  /** Who may see the debug pages: the default page links to them then, and `none` answers them. Default: {@link debugAccess}. */
  access?: DebugAccess;
  /** Answers `/bootstrap-dns`. Default: one without names, whose answer is empty. */
  bootstrapDns?: BootstrapDns;
  /** Default: no log. */
  logger?: Logger;
}

const CHECKS: Checks<PagesOptions> = {
  home: checkString,
  derpEnabled: checkBoolean,
  debug: checkFunction,
  access: checkFunction,
  bootstrapDns: having('a BootstrapDns', 'handle', 'counts'),
  logger: checkLogger,
};

const ROBOTS = 'User-agent: *\nDisallow: /\n';
/**
 * A listener for an `http.Server`'s requests.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION`
 */
export function pages(options: PagesOptions = {}): RequestListener {
  checkOptions(options, 'options', CHECKS);
  const derpEnabled = options.derpEnabled ?? true;
  const home = homePage(options.home ?? '', derpEnabled);
  const { debug } = options;
  const mayDebug = debug === undefined ? () => false : (options.access ?? debugAccess());
  const handlers = new Map<string, RequestListener>([
    ['/derp/probe', probe],
    ['/derp/latency-check', probe],
    ['/generate_204', noContent],
    ['/bootstrap-dns', (options.bootstrapDns ?? new BootstrapDns()).handle],
  ]);
  if (home.type === 'none') return onlyKnown(handlers, debug ?? notFound, mayDebug);

  const homeHandler = handlerOf(home, mayDebug);
  handlers.set('/derp', derpEnabled ? derpHandler(new LimitedLog(guardedLogger(options.logger))) : derpDisabled);
  handlers.set('/robots.txt', (_, response) => sendPage(response, 'text/plain; charset=utf-8', ROBOTS));
  return (request, response) => {
    if (request.method === 'CONNECT' && (request.socket as Partial<TLSSocket>).encrypted === true) {
      // derper has an experimental service there, which is off by default.
      sendText(response, 403, 'CONNECT not enabled');
      return;
    }
    const target = pathFor(request, response);
    if (target === undefined) return;
    const handler =
      handlers.get(target.path) ?? (target.path.startsWith('/debug/') ? (debug ?? notFound) : homeHandler);
    handler(request, response);
  };
}

/** Answers what clients need and what the operator may see; closes the connection of any other request. */
function onlyKnown(
  handlers: ReadonlyMap<string, RequestListener>,
  debug: RequestListener,
  mayDebug: DebugAccess,
): RequestListener {
  return (request, response) => {
    const target = parseRequestPath(request.url ?? '');
    const isDebug = target?.escaped.startsWith('/debug') === true && mayDebug(request);
    if (isDebug) {
      if (pathFor(request, response) !== undefined) debug(request, response);
      return;
    }
    const handler = request.method === 'CONNECT' ? undefined : handlers.get(target?.escaped ?? '');
    if (handler === undefined || (handler === probe && !isRead(request))) request.socket.destroy();
    else handler(request, response);
  };
}

/** Handles only requests that no relay took. */
function derpHandler(log: LimitedLog): RequestListener {
  return (request, response) => {
    const upgrade = request.headers.upgrade;
    if (upgrade !== undefined && !isKnownUpgrade(upgrade)) {
      log.log('info', 'upgrade', {}, `Weird upgrade: ${JSON.stringify(upgrade.slice(0, 64))}`);
    }
    sendText(response, 426, 'DERP requires connection upgrade');
  };
}

function derpDisabled(_request: IncomingMessage, response: ServerResponse): void {
  sendText(response, 404, 'derp server disabled');
}

function notFound(_request: IncomingMessage, response: ServerResponse): void {
  sendText(response, 404, '404 page not found');
}

/** Clients measure their latency with this page. */
function probe(request: IncomingMessage, response: ServerResponse): void {
  if (!isRead(request)) {
    response.setHeader('Allow', 'GET, HEAD');
    sendText(response, 405, 'bogus probe method');
    return;
  }
  response.setHeader('Access-Control-Allow-Origin', '*');
  sendEmpty(response, 200);
}

function handlerOf(home: Exclude<HomePage, { type: 'none' }>, mayDebug: DebugAccess): RequestListener {
  if (home.type === 'html') {
    return (request, response) =>
      sendPage(response, 'text/html; charset=utf-8', mayDebug(request) ? home.bodyForDebuggers : home.body);
  }
  return (request, response) => {
    setSecurityHeaders(response);
    sendRedirect(request, response, 302, home.url);
  };
}
