#!/usr/bin/env node
/**
 * `derplane [flags]` and `derplane demo [flags]`.
 *
 * Exit codes: 0 success, 1 cannot start or continue, 2 invalid command line. Modules load on demand for a fast start: clients wait in
 * TCP backoff while a relay restarts.
 */
import { DerpError } from '../errors.js';
import type { Logger } from '../log.js';
import { LimitedLog } from '../log_limit.js';
import { packageVersion } from '../version.js';
import { formatAddress } from './address.js';
import { relayConfig } from './config.js';
import { StartError, UsageError } from './exit.js';
import { parseFlags } from './flag_set.js';
import { FLAGS, PENDING_COMMANDS } from './flags.js';
import type { Log } from './logging.js';
import { printError, printOut } from './output.js';
import { logDebugSignal, nextSignal } from './signals.js';
import { type InheritedSocket, inheritedSockets } from './sockets.js';
import { usage } from './usage.js';

/** Milliseconds that closing may take before the program exits anyway, unless draining takes longer. */
const CLOSE_LIMIT = 2_000;

/** Milliseconds that closing may take beyond the drain time. */
const CLOSE_MARGIN = 500;

/** Logs a {@link StartError} once there is a logger, so that JSON logs contain it too. */
let logger: Logger | undefined;
let usageText = '';

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  // What started before the failure must not keep the process alive.
  process.exit(report(error));
}

async function main(args: string[]): Promise<number | undefined> {
  const version = packageVersion();
  if (args[0] === 'demo') {
    const { DEMO_FLAGS, demo } = await import('./demo.js');
    usageText = usage('derplane demo', DEMO_FLAGS);
    const flags = parseFlags(DEMO_FLAGS, args.slice(1));
    if (flags.help) return printUsage();
    refuseRest(flags.rest);
    return demo(flags.values);
  }
  if (PENDING_COMMANDS.includes(args[0] ?? ''))
    throw new StartError(`derplane ${version} has no command ${args[0]} yet`);

  usageText = usage('derplane', FLAGS);
  const flags = parseFlags(FLAGS, args);
  if (flags.help) return printUsage();
  refuseRest(flags.rest);
  if (flags.values.version) {
    printOut(`${version}\n`);
    return 0;
  }
  const config = relayConfig(flags, process.env, process.getuid?.() === 0, await passedSockets());
  const { createLog } = await import('./logging.js');
  const log = createLog(flags.values['log-format'], flags.values['log-level']);
  logger = log.logger;
  logProcessTrouble(logger);
  return runRelay(config, log);
}

/** Runs until a signal or a failure of the relay, then ends the process, at the limit if closing takes longer. */
async function runRelay(config: ReturnType<typeof relayConfig>, log: Log): Promise<undefined> {
  const { logger } = log;
  const stop = nextSignal();
  logDebugSignal(logger);
  let reload = () => logger.info({}, 'SIGHUP: still starting, nothing to reload');
  process.on('SIGHUP', () => reload());
  const { startRelay } = await import('./relay.js');
  const { ServiceManager, watchdogInterval } = await import('./service_manager.js');
  const manager = new ServiceManager(process.env['NOTIFY_SOCKET'] ?? '', logger);
  const relay = await Promise.race([startRelay(config, log), stop]);
  if (typeof relay === 'string') {
    logger.info({}, `${relay}: ended before it served`);
    process.exit(0);
  }
  const status = `serving on ${formatAddress(relay.address)}`;
  reload = () => {
    manager.reloading();
    try {
      relay.reload();
    } catch (error) {
      logger.error({}, `SIGHUP: not all is reloaded: ${(error as Error).message}`);
    }
    manager.ready(status);
  };
  manager.ready(status);
  const interval = watchdogInterval(process.env);
  if (interval !== undefined) manager.watch(interval, relay.answers);
  if (relay.derpNode !== undefined) log.print((await import('./tls.js')).derpMaps(relay.derpNode));
  if (config.dev && config.tls === undefined) log.print(nextSteps(formatAddress(relay.address)));

  const signal = await Promise.race([stop, relay.ended]);
  manager.stopping();
  if (signal === undefined) process.exit(1);
  logger.info({}, `${signal}: closing`);
  const limit = Math.max(CLOSE_LIMIT, config.drainTime + CLOSE_MARGIN);
  setTimeout(() => {
    logger.warn({}, `closing took over ${limit} ms, ending now`);
    process.exit(0);
  }, limit).unref();
  await relay.close();
  process.exit(0);
}

/** Sockets that systemd opened for this process; the addon is loaded only when there are some. */
async function passedSockets(): Promise<InheritedSocket[]> {
  if (process.env['LISTEN_FDS'] === undefined) return [];
  const { native } = await import('../native.js');
  return inheritedSockets(process.env, native.describeSocket);
}

function printUsage(): number {
  printError(usageText);
  return 0;
}

/** Sends what Node itself would write to stderr into the log: Node's own write would wait for a stalled reader. */
function logProcessTrouble(logger: Logger): void {
  const log = new LimitedLog(logger);
  process.removeAllListeners('warning');
  process.on('warning', ({ name, message }) => log.log('warn', name, {}, `${name}: ${message}`));
  process.on('uncaughtException', (error: unknown) => {
    logger.error({}, `derper: internal error, ending: ${(error as Error)?.stack ?? String(error)}`);
    process.exit(1);
  });
}

function refuseRest(rest: string[]): void {
  if (rest.length > 0) throw new UsageError(`unexpected argument: ${rest[0]}`);
}

function nextSteps(address: string): string {
  return `
derplane relays on http://${address}/derp. Try next, in another terminal:

  derplane demo      two clients exchange packets through this relay (in the repository: npm run demo)
  curl -i http://${address}/derp/probe
  curl -isN -m 1 -H 'Connection: Upgrade' -H 'Upgrade: DERP' http://${address}/derp | head -5

The last one is how every DERP client begins: the answer shows this relay's public key.

`;
}

function report(error: unknown): number {
  if (error instanceof UsageError) {
    printError(`${error.message}\n${usageText}`);
    return 2;
  }
  if (!(error instanceof StartError) && !(error instanceof DerpError)) throw error;
  if (logger) logger.error({}, error.message);
  else printError(`derplane: ${error.message}\n`);
  return 1;
}
