import type { Logger } from '../log.js';
import { LimitedLog } from '../log_limit.js';

/** Exit codes of a program that a signal ends, as shells report them. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/** Resolves with the first SIGTERM or SIGINT; a second one, of either kind, ends the process at once. */
export function nextSignal(): Promise<keyof typeof EXIT_CODES> {
  return new Promise((resolve) => {
    let seen = false;
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (seen) process.exit(EXIT_CODES[signal]);
        seen = true;
        resolve(signal);
      });
    }
  });
}

/**
 * Keeps SIGUSR1 from opening Node's inspector, through which anyone on this machine could run code in the relay. The handler works
 * once this module is loaded. `node --disable-sigusr1` (Node 22.14 and newer, except 23.0 to 23.6) also covers the time before.
 */
let onDebugSignal = () => {};
process.on('SIGUSR1', () => onDebugSignal());

/** Logs SIGUSR1 from now on. */
export function logDebugSignal(logger: Logger): void {
  const log = new LimitedLog(logger);
  onDebugSignal = () => log.log('info', 'SIGUSR1', {}, 'SIGUSR1: derplane does not use this signal');
}
