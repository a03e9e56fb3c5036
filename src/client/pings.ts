import { randomBytes } from 'node:crypto';
import { DerpError } from '../errors.js';
import { PING_LENGTH } from '../protocol/frame.js';
import { onAbort } from './abortable.js';
import { PING_TIMEOUT } from './defaults.js';

interface PendingPing {
  readonly startedAt: number;
  /** Ends its timer, and listens to its signal no more. */
  readonly done: () => void;
  resolve(milliseconds: number): void;
  reject(error: unknown): void;
}

/** Pings that wait for their pong, by their 8 bytes. */
export class Pings {
  readonly #pending = new Map<string, PendingPing>();

  /**
   * Sends 8 random bytes with `send`; resolves with the milliseconds until they came back.
   * @throws DerpError `ERR_DERP_TIMEOUT` after 5 s, `ABORT_ERR`
   */
  start(send: (data: Buffer) => Promise<void>, signal?: AbortSignal): Promise<number> {
    const data = randomBytes(PING_LENGTH);
    const id = data.toString('hex');
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#settle(id)?.reject(new DerpError('ERR_DERP_TIMEOUT', `no pong within ${PING_TIMEOUT / 1000} s`));
      }, PING_TIMEOUT);
      const unhear = onAbort(signal, (error) => this.#settle(id)?.reject(error));
      const done = () => {
        clearTimeout(timer);
        unhear();
      };
      this.#pending.set(id, { startedAt: performance.now(), done, resolve, reject });
      send(data).catch((error) => this.#settle(id)?.reject(error));
    });
  }

  /** Whether a pong with these 8 bytes was waited for. */
  answered(data: Buffer): boolean {
    const ping = this.#settle(data.toString('hex'));
    ping?.resolve(performance.now() - ping.startedAt);
    return ping !== undefined;
  }

  fail(reason: DerpError): void {
    for (const id of [...this.#pending.keys()]) this.#settle(id)?.reject(reason);
  }

  #settle(id: string): PendingPing | undefined {
    const ping = this.#pending.get(id);
    this.#pending.delete(id);
    ping?.done();
    return ping;
  }
}
