/** The pool of handshake threads of one relay. */
import { Piscina } from 'piscina';
import type { HandshakeResult, HandshakeTask, HandshakeThreadData } from './messages.js';

export interface HandshakesOptions extends HandshakeThreadData {
  threads: number;
  /** Handshakes at once; the native relay refuses connections beyond it, so tasks never queue longer than this. */
  maxHandshakes: number;
}

export class Handshakes {
  readonly #pool: Piscina<HandshakeTask, HandshakeResult>;

  constructor({ threads, maxHandshakes, ...workerData }: HandshakesOptions) {
    this.#pool = new Piscina({
      filename: new URL('./thread.js', import.meta.url).href,
      minThreads: threads,
      maxThreads: threads,
      // A task mostly waits for its client, so a thread takes as many as there are.
      concurrentTasksPerWorker: maxHandshakes,
      maxQueue: maxHandshakes,
      // Waiting in Atomics.wait would keep a thread from its sockets.
      atomics: 'disabled',
      recordTiming: false,
      workerData,
    });
  }

  /** Never rejects: whatever happens to the task's thread is a failed handshake. */
  async run(task: HandshakeTask): Promise<HandshakeResult> {
    try {
      return await this.#pool.run(task);
    } catch (error) {
      return { type: 'failed', failure: 'internal', upgraded: task.start !== 'request', text: (error as Error).message };
    }
  }

  /** Ends the threads; handshakes in progress fail. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}
