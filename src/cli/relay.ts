/** The relay as a program: what `derplane` does without a command. */
import type { RequestListener } from 'node:http';
import type { DerpNode } from '../certificates/derp_map.js';
import { DerpError } from '../errors.js';
import { canonicalHost } from '../host_name.js';
import { BootstrapDns } from '../http/bootstrap_dns.js';
import { type DebugPagesOptions, debugPages } from '../http/debug_pages.js';
import { boundedServer } from '../http/page_server.js';
import { pages } from '../http/pages.js';
import { plainPages } from '../http/plain_pages.js';
import type { Logger } from '../log.js';
import { PrivateKey } from '../protocol/key.js';
import { TrustedProxies } from '../proxies.js';
import { RING_BYTES } from '../server/defaults.js';
import type { ListenOptions, ServerOptions } from '../server/options.js';
import { readRateConfig } from '../server/rate_config.js';
import type { Server } from '../server/server.js';
import { planThreads } from '../server/thread_plan.js';
import { type Address, formatAddress, listenError, listenHost } from './address.js';
import { NO_MESH_KEY, type RelayConfig } from './config.js';
import { StartError } from './exit.js';
import { type HttpListener, listenHttp } from './http_listener.js';
import { loadKeyFile } from './key_file.js';
import type { Log } from './logging.js';
import { fetchMeshKey, loadMeshKey, type MeshKeySource } from './mesh_key.js';
import { debugOptions, serveMetrics } from './metrics.js';
import { startStun } from './stun.js';
import { derpMaps, isPrinted, openTls, type RelayTls } from './tls.js';

/** Port of STUN in a DERP map of a relay that serves none: nodes do not look for it then. */
const NO_STUN = -1;

export interface RunningRelay {
  /** With the actual port where the configuration says 0. */
  address: Address;
  /** Reloads what can change while the relay runs. A failure is logged, and the old settings stay. */
  reload(): void;
  /** Resolves when every thread that moves packets has answered. */
  answers(): Promise<void>;
  /** Stops listening and ends every connection, over the configured time. */
  close(): Promise<void>;
  /** The DERP map entry of a relay that clients know by an IP address. */
  derpNode?: DerpNode;
  /** Resolves when the relay has ended. Unless close() was called, it failed and has logged why. */
  ended: Promise<void>;
}

/**
 * Starts the relay that `config` describes. Resolves once it listens; shards may still be starting then.
 *
 * @throws {@link StartError} when it cannot start
 */
export async function startRelay(config: RelayConfig, log: Log): Promise<RunningRelay> {
  const { logger } = log;
  if (config.dev) logger.info({}, 'Running in dev mode.');
  for (const warning of config.warnings) logger.warn({}, warning);
  const key = config.keyFile === undefined ? PrivateKey.generate() : await loadKeyFile(config.keyFile);
  const meshKey = config.derp && config.meshKey ? await fetchMeshKey(config.meshKey, logger) : undefined;
  const tls = config.tls && (await openTls(config.tls.certificates, log));
  const relay = await serveAll({ ...config, meshKey }, key, tls, log).catch(async (error: unknown) => {
    await tls?.source.close();
    throw error;
  });
  tls?.source.start();
  logger.info(
    config.derp ? { publicKey: key.publicKey.toString() } : {},
    `derper: serving on ${formatAddress(relay.address)}${tls === undefined ? '' : ' with TLS'}${config.derp ? '' : ' without DERP'}`,
  );
  for (const { address } of config.address.sockets?.slice(1) ?? []) {
    logger.info({}, `derper: serving on ${address}${tls === undefined ? '' : ' with TLS'} too`);
  }
  return relay;
}

/** A configuration whose mesh key is here. */
type Ready = RelayConfig & { meshKey: MeshKeySource | undefined };

/** The relay, and the listeners beside it. */
async function serveAll(config: Ready, key: PrivateKey, tls: RelayTls | undefined, log: Log): Promise<RunningRelay> {
  const { logger } = log;
  let relay = await serve(config, key, tls, log);
  const { metricsAddress } = config;
  if (metricsAddress !== undefined) {
    relay = await beside(relay, metricsAddress, () =>
      serveMetrics(
        metricsAddress,
        { ...relay.debug, trustProxy: config.server.trustProxy ?? [] },
        relay.mayAccept,
        logger,
      ),
    );
  }
  if (config.tls === undefined || tls === undefined) return relay;
  const { plainAddress, certificates } = config.tls;
  if (plainAddress !== undefined) {
    relay = await beside(relay, plainAddress, () => servePlain(plainAddress, relay, tls, config, logger));
  }
  const node = (): DerpNode => ({
    ip: canonicalHost(config.hostname) ?? config.hostname,
    pin: tls.source.pin,
    port: relay.address.port,
    stunPort: relay.stunPort ?? NO_STUN,
    port80: plainAddress?.port === 80,
  });
  tls.onPinChange = () => log.print(derpMaps(node()));
  return {
    ...relay,
    ...(isPrinted(certificates) && { derpNode: node() }),
    close: () => relay.close().finally(() => tls.source.close()),
  };
}

/** A relay with its pages, and what its debug pages show. */
type Serving = RunningRelay & {
  debug: DebugPagesOptions;
  pages: RequestListener;
  /** Whether a listener beside the relay's own may accept one more connection. */
  mayAccept: () => boolean;
  /** Undefined: STUN is not served. */
  stunPort: number | undefined;
};

/** Adds a listener that stays open to the end, so that metrics show how far draining is. */
async function beside(relay: Serving, address: Address, listen: () => Promise<HttpListener>): Promise<Serving> {
  try {
    const listener = await listen();
    return { ...relay, close: () => relay.close().finally(() => listener.close()) };
  } catch (error) {
    await relay.close();
    throw isOurs(error) ? error : listenError(address, error);
  }
}

async function servePlain(
  address: Address,
  { pages, mayAccept }: Serving,
  { source }: RelayTls,
  { tcpKeepaliveTime, home, publicDebugPages, server: { trustProxy = [] } }: RelayConfig,
  logger: Logger,
): Promise<HttpListener> {
  const hidden = home === 'none';
  const server = boundedServer(
    plainPages({ pages, challenge: source.challenge, hidden, ...(!publicDebugPages && { access: () => false }) }),
    { hidden, mayAccept, proxies: new TrustedProxies(trustProxy) },
  );
  server.on('connection', (socket) => socket.setKeepAlive(true, tcpKeepaliveTime));
  const listener = await listenHttp(server, address, logger);
  logger.info({}, `derper: serving plain HTTP on ${formatAddress(listener.address)}`);
  return listener;
}

async function serve(
  config: Ready,
  key: PrivateKey,
  tls: RelayTls | undefined,
  { logger, linesLost }: Log,
): Promise<Serving> {
  const { address, tcpKeepaliveTime, tcpUserTimeout, drainTime, derp, home, rateConfig } = config;
  const { trustProxy = [], acceptLimit = {} } = config.server;
  const { mayAccept, Server } = await import('../server/server.js');
  const server = new Server(key, {
    ...(derp ? derpOptions(config, logger) : { ...NO_DERP, trustProxy, acceptLimit }),
    logger,
  });
  const expiry = tls && (() => tls.source.expiry());
  const stun = config.stun && (await startStun(config.stun, config.hostname, logger));
  const bootstrapDns = new BootstrapDns({ ...config.bootstrapDns, logger });
  const debug = debugOptions(server, config.hostname, expiry, linesLost, bootstrapDns, stun);
  if (derp) logger.info({}, `derper: ${admissionLine(server.admission)}`);
  const applyLimits = derp && rateConfig !== undefined ? () => applyRateConfig(server, rateConfig, logger) : undefined;
  try {
    if (applyLimits !== undefined) startWithLimits(applyLimits, rateConfig!);
    const listener = pages({
      home,
      derpEnabled: derp,
      ...(config.publicDebugPages && { debug: debugPages(debug) }),
      bootstrapDns,
      logger,
    });
    const httpServer = boundedServer(listener, { hidden: home === 'none', proxies: new TrustedProxies(trustProxy) });
    const port = await listen(server, address, {
      tcpKeepaliveTime,
      tcpUserTimeout,
      httpServer,
      ...(tls !== undefined && { tls: tls.context }),
    });
    bootstrapDns.start();
    return {
      address: { ...address, port },
      debug,
      pages: listener,
      mayAccept: () => mayAccept(server),
      stunPort: stun?.port,
      answers: () => server.ping(),
      reload: () => {
        const certificates = tls?.source.reload;
        const admission = derp && config.server.admission?.keyFile !== undefined;
        if (!certificates && !applyLimits && !admission) logger.info({}, 'SIGHUP: nothing to reload');
        certificates?.();
        if (admission) server.reloadAdmission();
        if (applyLimits !== undefined) reloadLimits(applyLimits, rateConfig!, logger);
      },
      close: async () => {
        bootstrapDns.close();
        await stun?.close();
        await server.close({ drainTime });
        httpServer.closeAllConnections();
      },
      ended: server.closed,
    };
  } catch (error) {
    await Promise.all([server.close(), stun?.close()]);
    throw isOurs(error) ? error : listenError(address, error);
  }
}

/** Listens at an address, or on the sockets that were passed for it; returns the first one's port. */
async function listen(server: Server, address: Address, options: ListenOptions): Promise<number> {
  if (address.sockets !== undefined) {
    for (const { fd } of address.sockets) await server.listen({ ...options, fd });
    return address.port;
  }
  const host = await listenHost(address);
  return (await server.listen({ ...options, ...(host !== undefined && { host }), port: address.port })).port;
}

/** Tells operators who may use a relay on the Internet. */
function admissionLine(summary: string | undefined): string {
  if (summary !== undefined) return `who may use this relay: only ${summary}`;
  return 'anyone who can reach this relay may use it; -allow-keys, -verify-clients or -verify-client-url limit that';
}

/** Pages only: as few threads as possible. */
const NO_DERP: ServerOptions = { derp: false, shards: 1, handshake: { threads: 1 } };

function derpOptions({ server, meshKey: source }: Ready, logger: Logger): ServerOptions {
  const meshKey = source && loadMeshKey(source);
  if (meshKey === undefined && server.mesh?.with?.length) throw new StartError(`${NO_MESH_KEY}; the file is empty`);
  logger.info({}, meshKey === undefined ? 'No mesh key configured' : 'DERP mesh key configured');
  const { shards, handshakeThreads, text } = planThreads({
    shards: server.shards,
    handshakeThreads: server.handshake?.threads,
    ringBytes: server.queues?.ringBytes ?? RING_BYTES,
  });
  logger.info({}, `derper: ${text}`);
  return {
    ...server,
    shards,
    handshake: { ...server.handshake, threads: handshakeThreads },
    ...(meshKey !== undefined && { mesh: { ...server.mesh, key: meshKey } }),
  };
}

function startWithLimits(apply: () => void, path: string): void {
  try {
    apply();
  } catch (error) {
    const reason = `-rate-config ${path}: ${(error as Error).message}`;
    throw new StartError(`derper: loading rate config: ${reason}`, { cause: error });
  }
}

function reloadLimits(apply: () => void, path: string, logger: Logger): void {
  logger.info({}, `derper: received SIGHUP, reloading rate config from ${path}`);
  try {
    apply();
    logger.info({}, 'derper: rate config reloaded successfully');
  } catch (error) {
    logger.error({}, `derper: rate config reload failed: ${(error as Error).message}`);
  }
}

function applyRateConfig(server: Server, path: string, logger: Logger): void {
  const wanted = readRateConfig(path);
  const { bytesPerSecond, burst } = server.setRateLimit(wanted.bytesPerSecond, wanted.burst);
  logger.info({}, `rate config applied: client-rate=${bytesPerSecond} bytes/sec, client-burst=${burst} bytes`);
}

/** Whether an error says by itself what the operator must know. Errors of the system do not. */
function isOurs(error: unknown): boolean {
  return error instanceof StartError || (error instanceof DerpError && error.syscall === undefined);
}
