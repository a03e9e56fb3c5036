/** The relay as a program: what `derplane` does unless told otherwise. */
import type { Server as HttpServer } from 'node:http';
import { DerpError } from '../errors.js';
import { type DebugPagesOptions, debugPages } from '../http/debug_pages.js';
import { createPageServer } from '../http/page_server.js';
import type { Logger } from '../log.js';
import { PrivateKey } from '../protocol/key.js';
import { readRateConfig } from '../server/rate_config.js';
import type { Server } from '../server/server.js';
import { type Address, formatAddress } from './address.js';
import type { RelayConfig } from './config.js';
import { StartError } from './exit.js';
import { loadKeyFile } from './key_file.js';
import { loadMeshKey } from './mesh_key.js';
import { debugOptions, serveMetrics } from './metrics.js';

export interface RunningRelay {
  /** With the port that was taken where the configuration says 0. */
  address: Address;
  /** Reads again what can change while the relay runs; a failure is logged, and what was in force stays. */
  reload(): void;
  /** Stops listening and ends every connection, over the configured time. */
  close(): Promise<void>;
  /** Resolves when it has ended; unless close() was called, it failed and has logged why. */
  ended: Promise<void>;
}

/**
 * Starts what `config` says and resolves once it listens; shards may still be starting then.
 *
 * @throws {@link StartError} when it cannot
 */
export async function startRelay(config: RelayConfig, logger: Logger): Promise<RunningRelay> {
  if (config.dev) logger.info({}, 'Running in dev mode.');
  for (const warning of config.warnings) logger.warn({}, warning);
  const key = config.keyFile === undefined ? PrivateKey.generate() : loadKeyFile(config.keyFile);
  const serving = config.derp ? await serveDerp(config, key, logger) : await servePages(config, logger);
  const { metricsAddress } = config;
  const relay = metricsAddress === undefined ? serving : await withMetrics(metricsAddress, serving, logger);
  logger.info(
    config.derp ? { publicKey: key.publicKey.toString() } : {},
    `derper: serving on ${formatAddress(relay.address)}${config.derp ? '' : ' without DERP'}`,
  );
  return relay;
}

/** A relay with what its debug pages show. */
type Serving = RunningRelay & { debug: DebugPagesOptions };

async function withMetrics(address: Address, serving: Serving, logger: Logger): Promise<RunningRelay> {
  try {
    const metrics = await serveMetrics(address, serving.debug, logger);
    // To the end: figures tell how far draining is.
    return { ...serving, close: () => serving.close().finally(() => metrics.close()) };
  } catch (error) {
    await serving.close();
    throw error instanceof DerpError ? error : listenError(address, error);
  }
}

function makePages(config: RelayConfig, debug: DebugPagesOptions, logger: Logger): HttpServer {
  return createPageServer({ home: config.home, derpEnabled: config.derp, debug: debugPages(debug), logger });
}

async function serveDerp(config: RelayConfig, key: PrivateKey, logger: Logger): Promise<Serving> {
  const { address, tcpKeepaliveTime, tcpUserTimeout, drainTime, rateConfig } = config;
  const meshKey = config.meshKey && loadMeshKey(config.meshKey);
  logger.info({}, meshKey === undefined ? 'No mesh key configured' : 'DERP mesh key configured');
  const { Server } = await import('../server/server.js');
  const server = new Server(key, { ...config.server, ...(meshKey !== undefined && { meshKey }), logger });
  const debug = debugOptions(server);
  try {
    if (rateConfig !== undefined) loadRateConfig(server, rateConfig, logger);
    const pages = makePages(config, debug, logger);
    const { port } = await server.listen({
      ...(address.host !== '' && { host: address.host }),
      port: address.port,
      tcpKeepaliveTime,
      tcpUserTimeout,
      httpServer: pages,
    });
    return {
      address: { host: address.host, port },
      debug,
      reload: () => reloadRateConfig(server, rateConfig, logger),
      close: async () => {
        await server.close({ drainTime });
        pages.closeAllConnections();
      },
      ended: server.closed,
    };
  } catch (error) {
    await server.close();
    throw error instanceof StartError || error instanceof DerpError ? error : listenError(address, error);
  }
}

function loadRateConfig(server: Server, path: string, logger: Logger): void {
  try {
    applyRateConfig(server, path, logger);
  } catch (error) {
    throw new StartError(`loading rate config: -rate-config ${path}: ${(error as Error).message}`, { cause: error });
  }
}

function reloadRateConfig(server: Server, path: string | undefined, logger: Logger): void {
  if (path === undefined) {
    logger.info({}, 'SIGHUP: there is nothing to reload');
    return;
  }
  logger.info({}, `derper: received SIGHUP, reloading rate config from ${path}`);
  try {
    applyRateConfig(server, path, logger);
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

async function servePages(config: RelayConfig, logger: Logger): Promise<Serving> {
  const { address, tcpKeepaliveTime } = config;
  const debug = debugOptions(undefined);
  const pages = makePages(config, debug, logger);
  pages.on('connection', (socket) => socket.setKeepAlive(true, tcpKeepaliveTime));
  return new Promise((resolve, reject) => {
    pages.once('error', (error) => reject(listenError(address, error)));
    pages.listen({ ...(address.host !== '' && { host: address.host }), port: address.port }, () => {
      const { port } = pages.address() as { port: number };
      resolve({
        address: { host: address.host, port },
        debug,
        reload: () => logger.info({}, 'SIGHUP: there is nothing to reload'),
        close: () =>
          new Promise((done) => {
            pages.close(() => done());
            pages.closeAllConnections();
          }),
        ended: new Promise((done) => pages.once('close', done)),
      });
    });
  });
}

/** What the system says when it cannot listen, in words. */
const LISTEN_ERRORS = new Map([
  ['EADDRINUSE', 'address already in use'],
  ['EACCES', 'permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)'],
  ['EADDRNOTAVAIL', 'no interface of this machine has that address'],
  ['ENOTFOUND', 'no such host'],
]);

function listenError(address: Address, error: unknown): Error {
  const reason = LISTEN_ERRORS.get((error as NodeJS.ErrnoException).code ?? '') ?? (error as Error).message;
  return new StartError(`listen ${formatAddress(address)}: ${reason}`, { cause: error });
}
