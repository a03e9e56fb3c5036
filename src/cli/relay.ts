/** The relay as a program: what `derplane` does unless told otherwise. */
import type { Server as HttpServer } from 'node:http';
import { createPageServer } from '../http/page_server.js';
import type { Logger } from '../log.js';
import { PrivateKey } from '../protocol/key.js';
import { type Address, formatAddress } from './address.js';
import type { RelayConfig } from './config.js';
import { StartError } from './exit.js';
import { loadKeyFile } from './key_file.js';

export interface RunningRelay {
  /** With the port that was taken where the configuration says 0. */
  address: Address;
  /** Stops listening and ends every connection. */
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
  const pages = createPageServer({ home: config.home, derpEnabled: config.derp, logger });
  const relay = config.derp ? await serveDerp(config, key, pages, logger) : await servePages(config, pages);
  logger.info(
    config.derp ? { publicKey: key.publicKey.toString() } : {},
    `derper: serving on ${formatAddress(relay.address)}${config.derp ? '' : ' without DERP'}`,
  );
  return relay;
}

async function serveDerp(
  config: RelayConfig,
  key: PrivateKey,
  pages: HttpServer,
  logger: Logger,
): Promise<RunningRelay> {
  const { address, tcpKeepaliveTime, tcpUserTimeout } = config;
  logger.info({}, 'No mesh key configured');
  const { Server } = await import('../server/server.js');
  const server = new Server(key, { ...config.server, logger });
  try {
    const { port } = await server.listen({
      ...(address.host !== '' && { host: address.host }),
      port: address.port,
      tcpKeepaliveTime,
      tcpUserTimeout,
      httpServer: pages,
    });
    return {
      address: { host: address.host, port },
      close: async () => {
        await server.close();
        pages.closeAllConnections();
      },
      ended: server.closed,
    };
  } catch (error) {
    await server.close();
    throw listenError(address, error);
  }
}

function servePages({ address, tcpKeepaliveTime }: RelayConfig, pages: HttpServer): Promise<RunningRelay> {
  pages.on('connection', (socket) => socket.setKeepAlive(true, tcpKeepaliveTime));
  return new Promise((resolve, reject) => {
    pages.once('error', (error) => reject(listenError(address, error)));
    pages.listen({ ...(address.host !== '' && { host: address.host }), port: address.port }, () => {
      const { port } = pages.address() as { port: number };
      resolve({
        address: { host: address.host, port },
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
