/** What systemd hears of the relay, and when: sd_notify(3), and the watchdog of sd_watchdog_enabled(3). */
import type { Logger } from '../log.js';
import { LimitedLog } from '../log_limit.js';
import { native } from '../native.js';

export class ServiceManager {
  readonly #socket: string;
  readonly #log: LimitedLog;
  readonly #send: (socket: string, text: string) => void;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param socket - `NOTIFY_SOCKET`: a path, or an abstract name behind `@`; empty when no service manager listens
   */
  constructor(socket: string, logger: Logger, send = native.notifyManager) {
    this.#socket = socket;
    this.#log = new LimitedLog(logger);
    this.#send = send;
  }

  /** The relay listens, or goes on after {@link reloading}. */
  ready(status: string): void {
    this.#tell(`READY=1\nSTATUS=${status}`);
  }

  reloading(): void {
    // systemd compares it with its own clock, which Node's high-resolution time uses too.
    this.#tell(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1_000n}`);
  }

  stopping(): void {
    this.#tell('STOPPING=1');
  }

  /**
   * Pings at twice the rate that the watchdog needs, as long as `answers` resolves in time: when this thread or one that it asks hangs,
   * the pings end, and the service manager ends the process.
   *
   * @param interval - milliseconds within which the watchdog needs a ping
   */
  watch(interval: number, answers: () => Promise<void>): void {
    let waits = false;
    this.#timer = setInterval(() => {
      if (waits) {
        this.#log.log(
          'error',
          'watchdog',
          {},
          'watchdog: a thread that moves packets does not answer, so there is no ping',
        );
        return;
      }
      waits = true;
      answers()
        .then(
          () => this.#tell('WATCHDOG=1'),
          () => {}, // the relay is closed, and the process about to end
        )
        .finally(() => {
          waits = false;
        });
    }, interval / 2).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #tell(text: string): void {
    if (this.#socket === '') return;
    try {
      this.#send(this.#socket, text);
    } catch (error) {
      const what = text.slice(0, text.indexOf('=') + 2);
      this.#log.log('warn', what, {}, `${what} to NOTIFY_SOCKET=${this.#socket}: ${(error as Error).message}`);
    }
  }
}

/** Milliseconds within which the watchdog needs a ping; undefined when there is none for this process. */
export function watchdogInterval(
  { WATCHDOG_USEC: interval = '', WATCHDOG_PID: owner = '' }: NodeJS.ProcessEnv,
  pid = process.pid,
): number | undefined {
  if (!/^\d+$/.test(interval) || Number(interval) === 0 || (owner !== '' && Number(owner) !== pid)) return undefined;
  return Number(interval) / 1_000;
}
