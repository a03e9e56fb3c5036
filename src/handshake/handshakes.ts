/** The handshake threads of one relay. Connections reach them natively; piscina starts the threads, and replaces one that fails. */
import { setTimeout } from 'node:timers/promises';
import type { MessagePort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { NativeRelay } from '../native.js';
import { type HandshakeTask, type HandshakeThreadData, THREAD_READY } from './messages.js';

export interface HandshakesOptions extends Omit<HandshakeThreadData, 'relayId' | 'started'> {
  relay: NativeRelay;
  threads: number;
  /** A port for each thread by which it asks who may use the relay; undefined: all may. */
  connectAdmission: () => MessagePort | undefined;
  /** Called when a thread ends unasked (another one replaces it), and when threads start late. */
  onTrouble: (message: string) => void;
}

/** Megabytes of a thread's young generation: handshakes make short-lived garbage only, and more would just be more memory. */
const YOUNG_GENERATION = 2;

/** Milliseconds before a thread that failed is replaced, so that one that cannot start does not fail at full speed. */
const RESTART_PAUSE = 1_000;

/** Milliseconds in which threads are ready even on a busy machine. After them listeners open all the same, and the log says so. */
const READY_TIMEOUT = 10_000;

export class Handshakes {
  readonly #relay: NativeRelay;
  readonly #connectAdmission: () => MessagePort | undefined;
  readonly #pool: Piscina<HandshakeTask, undefined>;
  readonly #threads: Promise<void>[] = [];
  readonly #onTrouble: (message: string) => void;
  #unready: number;
  #markReady: () => void = () => undefined;
  #closing = false;

  /** Resolves when each thread takes connections or failed once, when the threads are asked to end, and after READY_TIMEOUT. */
  readonly ready: Promise<void>;

  constructor({ relay, threads, connectAdmission, onTrouble, ...options }: HandshakesOptions) {
    this.#relay = relay;
    this.#connectAdmission = connectAdmission;
    this.#onTrouble = onTrouble;
    this.#unready = threads;
    this.ready = this.#awaitReady();
    const workerData: HandshakeThreadData = {
      ...options,
      relayId: relay.id,
      started: new Int32Array(new SharedArrayBuffer(4)),
    };
    this.#pool = new Piscina({
      filename: new URL('./thread.js', import.meta.url).href,
      minThreads: threads,
      maxThreads: threads,
      // Waiting in Atomics.wait would keep a thread from its sockets.
      atomics: 'disabled',
      recordTiming: false,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION },
      workerData,
    });
    // A thread that fails before it has a task is reported here, and nowhere else.
    this.#pool.on('error', (error) => this.#onLost(error));
    this.#pool.on('message', (message) => {
      if (message === THREAD_READY) this.#oneReady();
    });
    for (let n = 0; n < threads; n++) this.#threads.push(this.#keepRunning());
  }

  /** Ends the threads; handshakes in progress are closed. Waits for threads that are starting: Node aborts when one ends then. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#markReady();
    this.#relay.endHandshakes();
    await Promise.all(this.#threads);
    await this.#pool.destroy();
  }

  async #keepRunning(): Promise<void> {
    while (!this.#closing) {
      try {
        const admission = this.#connectAdmission();
        await this.#pool.run({ admission }, { transferList: admission === undefined ? [] : [admission] });
      } catch (error) {
        if (this.#closing) return;
        this.#onLost(error as Error);
        await setTimeout(RESTART_PAUSE, undefined, { ref: false });
      }
    }
  }

  #awaitReady(): Promise<void> {
    return new Promise((resolve) => {
      const late = globalThis
        .setTimeout(() => {
          this.#onTrouble(
            `handshake threads not running ${READY_TIMEOUT / 1_000} seconds after the start: ${this.#unready}; until one runs, connections wait`,
          );
          resolve();
        }, READY_TIMEOUT)
        .unref();
      this.#markReady = () => {
        clearTimeout(late);
        resolve();
      };
    });
  }

  #oneReady(): void {
    if (--this.#unready === 0) this.#markReady();
  }

  #onLost(error: Error): void {
    this.#onTrouble(`handshake thread ended: ${error.message}`);
    this.#oneReady();
  }
}
