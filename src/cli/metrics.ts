/** Debug pages of the program, and the listener of their own that they may have. */
import type { Server as HttpServer } from 'node:http';
import type { DebugPagesOptions, DebugSource } from '../http/debug_pages.js';
import { createMetricsServer } from '../http/metrics_server.js';
import type { Logger } from '../log.js';
import { type Address, formatAddress } from './address.js';

/** A listener for metrics. */
export interface MetricsListener {
  address: Address;
  close(): Promise<void>;
}

/** What the debug pages show; `relay` is undefined where no DERP is served. */
export function debugOptions(relay: DebugSource | undefined): DebugPagesOptions {
  return { ...(relay !== undefined && { relay }), cmdline: ['derplane', ...shownCommandLine(process.argv.slice(2))] };
}

/**
 * Listens at `address` for metrics and debug pages.
 *
 * @throws the system's error when it cannot
 */
export async function serveMetrics(
  address: Address,
  options: DebugPagesOptions,
  logger: Logger,
): Promise<MetricsListener> {
  const server = createMetricsServer({ ...options, host: address.host });
  const port = await listen(server, address);
  const bound = { host: address.host, port };
  logger.info({}, `derper: serving metrics on ${formatAddress(bound)}`);
  return {
    address: bound,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

function listen(server: HttpServer, { host, port }: Address): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...(host !== '' && { host }), port }, () => resolve((server.address() as { port: number }).port));
  });
}

/** Flags whose value is secret. */
const SECRET_FLAGS = new Set(['acme-eab-key']);

/** The command line without what must not be shown: values of secret flags, and passwords in URLs. */
export function shownCommandLine(args: readonly string[]): string[] {
  const shown: string[] = [];
  let secret = false;
  for (const arg of args) {
    const [, name, value] = arg.match(/^--?([^=]+)(?:=(.*))?$/s) ?? [];
    const isSecret = SECRET_FLAGS.has(name ?? '');
    if (secret) shown.push('…');
    else if (isSecret && value !== undefined) shown.push(`-${name}=…`);
    else shown.push(arg.replace(/\/\/[^@/]*@/g, '//…@'));
    secret = !secret && isSecret && value === undefined;
  }
  return shown;
}
