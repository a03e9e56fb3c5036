import { DerpError } from '../errors.js';
import { onAbort } from './abortable.js';
import { MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES } from './defaults.js';
import type { ReceivedMessage } from './messages.js';

interface Waiting {
  resolve(message: ReceivedMessage): void;
  reject(error: DerpError): void;
}

/** What a second reader gets. */
export function busy(): DerpError {
  return new DerpError('ERR_DERP_BUSY', 'recv is already waiting: let one party receive and hand the messages on');
}

/** Messages between the stream that brings them and the one party that calls `recv`. */
export class ReceiveQueue {
  readonly #messages: { message: ReceivedMessage; bytes: number }[] = [];
  #bytes = 0;
  #waiting: Waiting | undefined;

  /** Whether nothing may be pushed before something was taken. */
  get isFull(): boolean {
    return this.#messages.length >= MAX_QUEUED_MESSAGES || this.#bytes >= MAX_QUEUED_BYTES;
  }

  /** Gives a message to the waiting party, or keeps it. `bytes` is what it weighs. */
  push(message: ReceivedMessage, bytes: number): void {
    const waiting = this.#waiting;
    if (waiting !== undefined) {
      this.#waiting = undefined;
      waiting.resolve(message);
      return;
    }
    this.#messages.push({ message, bytes });
    this.#bytes += bytes;
  }

  /**
   * The oldest message, as soon as there is one. A signal ends the wait, and takes no message.
   * @throws DerpError `ERR_DERP_BUSY` while another call waits: two readers would each get some of the messages
   */
  take(signal?: AbortSignal): Promise<ReceivedMessage> {
    if (this.#waiting !== undefined) return Promise.reject(busy());
    const first = this.#messages.shift();
    if (first !== undefined) {
      this.#bytes -= first.bytes;
      return Promise.resolve(first.message);
    }
    return new Promise<ReceivedMessage>((resolve, reject) => {
      const done = onAbort(signal, (error) => {
        this.#waiting = undefined;
        reject(error);
      });
      this.#waiting = {
        resolve: (message) => {
          done();
          resolve(message);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
    });
  }

  /** Tells the waiting party, if there is one, that no message will come. */
  fail(reason: DerpError): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(reason);
  }

  /** Drops the remaining messages. */
  clear(): void {
    this.#messages.length = 0;
    this.#bytes = 0;
  }
}
