/** The metrics as Go's expvar shows them: one JSON object, the relay's in the map `derp`. */
import { uptime } from 'node:os';
import type { CertificateExpiry } from '../certificates/expiry.js';
import type { Stats } from '../server/stats.js';
import type { StunStats } from '../stun/stun_server.js';
import type { BootstrapDns } from './bootstrap_dns.js';
import { placeFigures } from './connection_places.js';
import { type Figures, METRICS } from './metrics_table.js';

/** What the debug pages need from a relay; {@link Server} implements it. */
export interface FigureSource {
  expVar(): Stats;
  shardVars(): Stats[];
}

/** What the debug pages need from a STUN server; {@link StunServer} implements it. */
export interface StunSource {
  /** Undefined: it cannot listen. */
  stats(): StunStats | undefined;
  /** 1 once clients seem to be hidden by NAT in front of the relay. */
  hidesClients?(): number;
}

/** Sources of the metrics. */
export interface FigureSources {
  relay: FigureSource | undefined;
  version: string;
  certificates?: (() => readonly CertificateExpiry[]) | undefined;
  logLinesLost?: (() => number) | undefined;
  bootstrapDns?: BootstrapDns | undefined;
  stun?: StunSource | undefined;
}

/** Reads the current values of all metrics. */
export function readFigures(sources: FigureSources): Figures {
  const { relay, version, certificates, logLinesLost, bootstrapDns, stun } = sources;
  const now = Date.now() / 1000;
  return {
    relay: relay?.expVar(),
    shards: relay?.shardVars() ?? [],
    certificates: certificates?.() ?? [],
    bootstrapDns: bootstrapDns?.counts(),
    stun: stun && { stats: stun.stats(), hidesClients: stun.hidesClients?.() ?? 0 },
    logLinesLost: logLinesLost?.(),
    version,
    uptime: Math.floor(process.uptime()),
    startTime: Math.floor(now - process.uptime()),
    bootTime: Math.floor(now - uptime()),
    pages: placeFigures,
  };
}

/** Names in derper's map `derp`. The counters of drops and of WebSockets are beside the map. */
const IN_DERP = new Set(
  METRICS.filter(({ name }) => name.startsWith('derp_'))
    .map(({ name }) => name.slice('derp_'.length))
    .filter((name) => !name.endsWith('_dropped') && name !== 'websocket_accepts'),
);

/** Metrics of TLS, which derper also shows beside its map. */
const TLS_NAMES = ['derper_tls_request_version', 'gauge_derper_tls_active_version', 'tls_listener'];

/** @param cmdline - the command line to show; nothing secret */
export function debugVars(figures: Figures, cmdline: readonly string[]): object {
  const { relay = {}, shards, version } = figures;
  const isDerp = (name: string) => IN_DERP.has(name.replace(/^(?:counter|gauge)_/, ''));
  const { bytes_dropped, packets_dropped, websocket_accepts, ...rest } = relay;
  const isLimited = relay['rate_limit_per_client_bytes_per_second'] !== undefined;
  const entries = Object.entries(rest).filter(
    ([name]) => !TLS_NAMES.includes(name) && (isLimited || name !== 'rate_limit_per_client_waited'),
  );
  const tls = Object.entries(rest).filter(([name]) => TLS_NAMES.includes(name));
  return sorted({
    cmdline,
    counter_uptime_sec: figures.uptime,
    derp: sorted({ ...Object.fromEntries(entries.filter(([name]) => isDerp(name))), version }),
    ...(figures.relay !== undefined && {
      derp_bytes_dropped: bytes_dropped,
      derp_packets_dropped: packets_dropped,
      derp_websocket_accepts: websocket_accepts,
    }),
    derplane: sorted({
      ...Object.fromEntries(entries.filter(([name]) => !isDerp(name))),
      ...certificateVars(figures),
      ...(figures.logLinesLost !== undefined && { log_lines_lost: figures.logLinesLost }),
      shards,
    }),
    ...Object.fromEntries(tls),
    ...Object.fromEntries(
      Object.entries(figures.bootstrapDns ?? {}).map(([name, value]) => [`counter_bootstrap_dns_${name}`, value]),
    ),
    ...stunVars(figures),
    node_boot_time_seconds: figures.bootTime,
    nodejs_memory: process.memoryUsage(),
    process_start_unix_time: figures.startTime,
    version,
  });
}

/** The metrics of certificates, by the names that the map gives to gauges. */
function certificateVars(figures: Figures): Stats {
  const prefix = 'derplane_certificate_';
  const found = METRICS.filter(({ name }) => name.startsWith(prefix)).flatMap((metric) => {
    const value = metric.value(figures);
    return value === undefined ? [] : [[metric.name.replace('derplane_', 'gauge_'), value] as const];
  });
  return Object.fromEntries(found);
}

function stunVars({ stun }: Figures): object {
  if (stun?.stats === undefined) return {};
  const { addrfamily, no_local_addr, requests } = stun.stats;
  return { stun: { counter_addrfamily: addrfamily, counter_no_local_addr: no_local_addr, counter_requests: requests } };
}

function sorted(object: object): object {
  return Object.fromEntries(Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1)));
}
