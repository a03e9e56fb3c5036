/**
 * The relay's HTTP endpoints beside DERP itself: probes, captive portal check, home page.
 *
 * Requests that upgrade to DERP never come here when a relay serves the connection; what remains of `/derp` is answered 426.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { type Checks, checkBoolean, checkFunction, checkLogger, checkOptions, checkString } from '../checks.js';
import { isKnownUpgrade } from '../handshake/request.js';
import { guardedLogger, type Logger } from '../log.js';
import { LimitedLog } from '../log_limit.js';
import { isRead, sendEmpty, sendPage, sendRedirect, sendText } from './answers.js';
import { homePage } from './home.js';
import { noContent } from './no_content.js';
import { pathFor } from './routing.js';
import { setSecurityHeaders } from './security_headers.js';

export interface PagesOptions {
  /** Empty: the default page; `blank`: an empty page; an http(s) URL: a redirect there. Default: empty. */
  home?: string;
  /** Whether DERP is served; if not, `/derp` is 404. Default: true. */
  derpEnabled?: boolean;
  /** Serves paths below `/debug/`, see {@link debugPages}. Default: they are 404. */
  debug?: RequestListener;
  /** Default: nowhere. */
  logger?: Logger;
}

const CHECKS: Checks<PagesOptions> = {
  home: checkString,
  derpEnabled: checkBoolean,
  debug: checkFunction,
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
  const home = homeHandler(options.home ?? '', derpEnabled);
  const debug = options.debug ?? notFound;
  const handlers = new Map<string, RequestListener>([
    ['/derp', derpEnabled ? derpHandler(new LimitedLog(guardedLogger(options.logger))) : derpDisabled],
    ['/derp/probe', probe],
    ['/derp/latency-check', probe],
    ['/generate_204', noContent],
    ['/robots.txt', (_, response) => sendPage(response, 'text/plain; charset=utf-8', ROBOTS)],
  ]);

  return (request, response) => {
    if (request.method === 'CONNECT' && (request.socket as Partial<TLSSocket>).encrypted === true) {
      // derper has an experimental service there, which is off by default.
      sendText(response, 403, 'CONNECT not enabled');
      return;
    }
    const target = pathFor(request, response);
    if (target === undefined) return;
    const handler = handlers.get(target.path) ?? (target.path.startsWith('/debug/') ? debug : home);
    handler(request, response);
  };
}

/** Only requests that no relay took come here. */
function derpHandler(log: LimitedLog): RequestListener {
  return (request, response) => {
    const upgrade = request.headers.upgrade;
    if (upgrade !== undefined && !isKnownUpgrade(upgrade)) {
      log.log('debug', 'upgrade', {}, `Weird upgrade: ${JSON.stringify(upgrade.slice(0, 64))}`);
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

/** What clients measure their latency with. */
function probe(request: IncomingMessage, response: ServerResponse): void {
  if (!isRead(request)) {
    response.setHeader('Allow', 'GET, HEAD');
    sendText(response, 405, 'bogus probe method');
    return;
  }
  response.setHeader('Access-Control-Allow-Origin', '*');
  sendEmpty(response, 200);
}

function homeHandler(value: string, derpEnabled: boolean): RequestListener {
  const home = homePage(value, derpEnabled);
  if (home.type === 'html') {
    return (_, response) => sendPage(response, 'text/html; charset=utf-8', home.body);
  }
  return (request, response) => {
    setSecurityHeaders(response);
    sendRedirect(request, response, 302, home.url);
  };
}
