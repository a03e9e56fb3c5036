import { setTimeout as sleep } from 'node:timers/promises';
import { MAX_RESTART_WAIT, RESTART_RETRY_INTERVAL, RESTART_STAGGER } from './defaults.js';
import type { RestartingMessage } from './messages.js';

/**
 * A restart that a relay announced. Its clients shall come back after a time, not all at once, and try again for a while before they
 * hold the relay for lost. Times that a relay may ask for have a bound.
 */
export class AnnouncedRestart {
  readonly #comeBackAt: number;
  readonly #giveUpAt: number;

  /** @param random - from 0 to 1: where in the stagger this client is */
  constructor({ reconnectIn, tryFor }: RestartingMessage, random: number = Math.random()) {
    const wait = Math.min(reconnectIn, MAX_RESTART_WAIT) * (1 + RESTART_STAGGER * random);
    this.#comeBackAt = performance.now() + wait;
    this.#giveUpAt = this.#comeBackAt + Math.min(tryFor, MAX_RESTART_WAIT);
  }

  /** Whether a connection that is lost now was lost by the restart. */
  get isCurrent(): boolean {
    return performance.now() < this.#giveUpAt;
  }

  /**
   * Waits until it is time, then calls `attempt` until it succeeds.
   * @throws the last attempt's error once there was time enough; the signal's reason when that is aborted
   */
  async reconnect<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.#wait(this.#comeBackAt - performance.now(), signal);
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        if (performance.now() + RESTART_RETRY_INTERVAL > this.#giveUpAt) throw error;
      }
      await this.#wait(RESTART_RETRY_INTERVAL, signal);
    }
  }

  async #wait(milliseconds: number, signal: AbortSignal): Promise<void> {
    // What an abort makes of the timer says less than the signal's own reason.
    await sleep(Math.max(0, milliseconds), undefined, { signal }).catch(() => {});
    signal.throwIfAborted();
  }
}
