/** Debug pages of the program, and their optional separate listener. */

import type { CertificateExpiry } from '../certificates/expiry.js';
import type { BootstrapDns } from '../http/bootstrap_dns.js';
import type { DebugPagesOptions, DebugSource } from '../http/debug_pages.js';
import { type MetricsServerOptions, metricsServer } from '../http/metrics_server.js';
import type { Logger } from '../log.js';
import { type Address, formatAddress } from './address.js';
import { type HttpListener, listenHttp } from './http_listener.js';
import type { RunningStun } from './stun.js';

/**
 * What the debug pages show.
 *
 * @param relay - undefined if DERP is not served
 * @param hostname - of `-hostname`
 * @param certificates - undefined if TLS is not served
 * @param logLinesLost - of the program's log
 */
export function debugOptions(
  relay: DebugSource | undefined,
  hostname: string,
  certificates: (() => CertificateExpiry[]) | undefined,
  logLinesLost: () => number,
  bootstrapDns: BootstrapDns,
  stun: RunningStun | undefined,
): DebugPagesOptions {
  return {
    ...(relay !== undefined && { relay }),
    ...(certificates !== undefined && { certificates }),
    hostname,
    logLinesLost,
    bootstrapDns,
    ...(stun !== undefined && { stun }),
    cmdline: ['derplane', ...shownCommandLine(process.argv.slice(2))],
  };
}

/**
 * Listens at `address` for metrics and debug pages.
 *
 * @throws the system's error when it cannot listen
 */
export async function serveMetrics(
  address: Address,
  options: Omit<MetricsServerOptions, 'host'>,
  mayAccept: () => boolean,
  logger: Logger,
): Promise<HttpListener> {
  const listener = await listenHttp(metricsServer({ ...options, host: address.host }, mayAccept), address, logger);
  logger.info({}, `derper: serving metrics on ${formatAddress(listener.address)}`);
  return listener;
}

/** Flags with secret values. */
const SECRET_FLAGS = new Set(['acme-eab-key']);

/** The command line without secrets: values of secret flags, and passwords in URLs. */
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
