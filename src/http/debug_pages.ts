/** The pages below /debug/: an index, metrics as JSON and for Prometheus, consistency check, traffic. */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { hostname } from 'node:os';
import type { CertificateExpiry } from '../certificates/expiry.js';
import { arrayOf, type Checks, checkBoolean, checkFunction, checkOptions, checkString, having } from '../checks.js';
import { envBoolean } from '../env_boolean.js';
import { parseRequestPath } from '../requests/target.js';
import { packageVersion } from '../version.js';
import { escapeHtml, sendRedirect, sendText } from './answers.js';
import type { BootstrapDns } from './bootstrap_dns.js';
import { type DebugAccess, debugAccess } from './debug_access.js';
import { type ClientsSource, sendClients } from './debug_clients.js';
import { streamTraffic, type TrafficSource } from './debug_traffic.js';
import { debugVars, type FigureSource, readFigures, type StunSource } from './debug_vars.js';
import { sampleEventLoop } from './event_loop_lag.js';
import type { Figures } from './metrics_table.js';
import { setSecurityHeaders } from './security_headers.js';

/** What the debug pages need from a relay; {@link Server} implements it. */
export interface DebugSource extends FigureSource, TrafficSource, ClientsSource {
  readonly hasMeshKey: boolean;
  consistencyCheck(): Promise<void>;
}

export interface DebugPagesOptions {
  /** Default: none, and the pages show the process only. */
  relay?: DebugSource;
  /** The TLS name, shown on the pages. Default: none. */
  hostname?: string;
  /** The relay's TLS certificates; their expiry is a metric. Default: none. */
  certificates?: () => readonly CertificateExpiry[];
  /** What answers `/bootstrap-dns`; its request counts are metrics. Default: none. */
  bootstrapDns?: BootstrapDns;
  /** What answers STUN, a {@link StunServer}; its request counts are metrics. Default: none. */
  stun?: StunSource;
  /** Lines of the program's log that could not be written; a metric. Default: none. */
  logLinesLost?: () => number;
  /** Shown, and the value of the metric `version`. Default: the version of this package. */
  version?: string;
  /** The command line, shown on the pages; must not contain secrets. Default: none. */
  cmdline?: readonly string[];
  /** Whether pages show from how many keys a client received packets. Default: the variable `TS_DERP_SENDER_CARDINALITY`. */
  senderCardinality?: boolean;
  /** Who may see them; others get 403. Default: {@link debugAccess}, derper's rule. */
  access?: DebugAccess;
}

/** The checks of {@link DebugPagesOptions}. */
export const DEBUG_CHECKS: Checks<DebugPagesOptions> = {
  relay: having('a Server', 'expVar', 'shardVars', 'traffic', 'consistencyCheck', 'clients'),
  hostname: checkString,
  certificates: checkFunction,
  version: checkString,
  cmdline: arrayOf(checkString),
  bootstrapDns: having('a BootstrapDns', 'handle', 'counts'),
  stun: having('a StunServer', 'stats'),
  logLinesLost: checkFunction,
  senderCardinality: checkBoolean,
  access: checkFunction,
};

/** Maximum pages that stay open at once: each asks the shards every 2 s and keeps a figure per client. */
const MAX_TRAFFIC_PAGES = 16;

/**
 * A listener for requests whose path begins with `/debug/`; `pages` and `createPageServer` take it as option `debug`.
 *
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION`, also when `TS_ALLOW_DEBUG_IP` or `TS_DEBUG_TRUSTED_CIDRS` contains an invalid address
 */
export function debugPages(options: DebugPagesOptions = {}): RequestListener {
  checkOptions(options, 'options', DEBUG_CHECKS);
  const { relay, access = debugAccess(), version = packageVersion(), cmdline = [] } = options;
  const countsSenders = options.senderCardinality ?? envBoolean(process.env, 'TS_DERP_SENDER_CARDINALITY');
  // Sampling starts here, so that the first scrape covers the time before it.
  sampleEventLoop();
  const figures = () => readFigures({ ...options, relay, version });
  let trafficPages = 0;
  const routes = new Map<string, Page>([
    ['/debug/', (_, response) => sendIndex(response, { ...options, version })],
    ['/debug/vars', (_, response) => sendJson(response, debugVars(figures(), cmdline))],
    ['/debug/varz', (_, response) => sendMetrics(response, figures())],
  ]);
  if (relay !== undefined) {
    routes.set('/debug/check', (_, response) => sendCheck(relay, response));
    routes.set('/debug/traffic', async (request, response) => {
      if (trafficPages >= MAX_TRAFFIC_PAGES)
        return sendText(response, 503, `more than ${MAX_TRAFFIC_PAGES} pages are open`);
      trafficPages++;
      await sendTraffic(relay, countsSenders, request, response).finally(() => trafficPages--);
    });
    routes.set(CLIENTS, (request, response) =>
      sendClients({ relay, totals: () => totals(relay), countsSenders, send: sendClientsPage }, request, response),
    );
  }
  return (request, response) => {
    if (!access(request)) return sendText(response, 403, 'debug access denied');
    const path = parseRequestPath(request.url ?? '')?.path ?? '';
    if (relay !== undefined && path === CLIENTS.slice(0, -1)) return sendRedirect(request, response, 307, CLIENTS);
    const page = routes.get(path.startsWith(CLIENTS) ? CLIENTS : path);
    if (page === undefined) return sendText(response, 404, '404 page not found');
    void Promise.resolve(page(request, response)).catch((error: Error) => fail(response, error));
  };
}

/** The page of clients, and every path below it. */
const CLIENTS = '/debug/clients/';

function totals(relay: DebugSource): { connections: number; keys: number } {
  const figures = relay.expVar();
  return {
    connections: figures['gauge_current_connections'] as number,
    keys: figures['gauge_clients_local'] as number,
  };
}

function sendClientsPage(response: ServerResponse, type: string, body: string, status = 200): void {
  send(response, status, type, body);
}

type Page = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

function fail(response: ServerResponse, error: Error): void {
  if (response.headersSent) response.destroy();
  else sendText(response, 500, error.message);
}

/** These pages may contain inline styles; the index has none. */
function setDebugHeaders(response: ServerResponse): void {
  setSecurityHeaders(response);
  const policy = response.getHeader('Content-Security-Policy') as string;
  response.setHeader('Content-Security-Policy', `${policy}; style-src 'self' 'unsafe-inline'`);
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  setDebugHeaders(response);
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) }).end(body);
}

function sendJson(response: ServerResponse, value: object): void {
  send(response, 200, 'application/json; charset=utf-8', `${JSON.stringify(value, null, '\t')}\n`);
}

async function sendMetrics(response: ServerResponse, figures: Figures): Promise<void> {
  // Loaded on the first request: loading at start would delay waiting clients.
  const { METRICS_TYPE, metricsText } = await import('./metrics_text.js');
  send(response, 200, METRICS_TYPE, await metricsText(figures));
}

async function sendCheck(relay: DebugSource, response: ServerResponse): Promise<void> {
  const problem = await relay.consistencyCheck().then(
    () => undefined,
    (error: Error) => error.message,
  );
  const text =
    problem === undefined ? 'derp.Server ConsistencyCheck okay' : `derp.Server ConsistencyCheck failure: ${problem}\n`;
  send(response, problem === undefined ? 200 : 500, 'text/plain; charset=utf-8', text);
}

async function sendTraffic(
  relay: DebugSource,
  countsSenders: boolean,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  setDebugHeaders(response);
  response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' });
  if (request.method === 'HEAD') response.end();
  else await streamTraffic(relay, countsSenders, response);
}

function sendIndex(response: ServerResponse, options: DebugPagesOptions): void {
  const { relay } = options;
  const facts = [
    ['Uptime', duration(Math.floor(process.uptime()))],
    ['Version', options.version ?? ''],
    ['Machine', hostname()],
    ['TLS hostname', options.hostname ?? ''],
    ['Mesh key', String(relay?.hasMeshKey ?? false)],
  ];
  const links = [
    ['vars', 'Metrics (JSON)'],
    ['varz', 'Metrics (Prometheus)'],
    ...(relay === undefined
      ? []
      : [
          ['check', 'Consistency check'],
          ['traffic', 'Traffic check'],
          ['clients/', 'Connected clients'],
        ]),
  ];
  const items = [
    ...facts.map(([name, value]) => `<li><b>${name}:</b> ${escapeHtml(value!)}</li>`),
    ...links.map(([page, text]) => `<li><a href="/debug/${page}">/debug/${page}</a> (${text})</li>`),
  ];
  const body = `<html><body><h1>derplane debug</h1><ul>${items.join('')}</ul></body></html>\n`;
  setSecurityHeaders(response);
  response
    .writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Content-Length': Buffer.byteLength(body) })
    .end(body);
}

/** Go's way to write a time: `1h2m3s`. */
function duration(seconds: number): string {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  return `${hours > 0 ? `${hours}h` : ''}${seconds >= 60 ? `${minutes}m` : ''}${seconds % 60}s`;
}
