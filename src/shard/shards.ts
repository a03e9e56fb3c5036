/** The shards of one relay: their shared memory, their threads, and the native relay that they meet in. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { type NativeRelay, type NativeRelayConfig, native } from '../native.js';
import { threadName } from '../thread_name.js';
import type { ShardWorkerData } from './worker.js';

/** {@link NativeRelayConfig} without the memory, and with the budget for it. */
export type ShardsConfig = Omit<NativeRelayConfig, 'counters' | 'rings'> & {
  /** Bytes of one ring's data. */
  ringSize: number;
  /** Called when a shard's thread ends without having been asked to. */
  onLost: (index: number, reason: string) => void;
};

/** Megabytes. A shard's JavaScript starts it and ends it, which takes 5; nothing runs in between. */
const HEAP_LIMITS = { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 32 };

export class Shards {
  readonly relay: NativeRelay;
  /** One array per shard, in the order of `native.counterNames()`. */
  readonly counters: readonly BigInt64Array[];
  readonly #workers: Worker[];
  readonly #ready: Promise<void>;
  #closing = false;

  constructor({ ringSize, onLost, ...config }: ShardsConfig) {
    const { shards } = config;
    const counterCount = native.counterNames().length;
    this.counters = Array.from({ length: shards }, () => new BigInt64Array(new SharedArrayBuffer(8 * counterCount)));
    const rings = makeRings(shards, ringSize + native.ringOverhead);
    this.relay = new native.Relay({ ...config, counters: [...this.counters], rings });
    this.#workers = Array.from({ length: shards }, (_, index) => this.#start(index, onLost));
    this.#ready = Promise.all(this.#workers.map(firstMessage)).then(() => undefined);
    // ready() reports a failure, if someone waits for it.
    this.#ready.catch(() => undefined);
  }

  /** Resolves when every shard runs. */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** Ends every client, then the threads. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(
      this.#workers.map(async (worker) => {
        if (worker.threadId === -1) return;
        // once() would reject at an error that comes before the exit.
        const exit = new Promise<void>((resolve) => {
          worker.once('exit', () => resolve());
        });
        worker.postMessage('end');
        await exit;
      }),
    );
    this.relay.close();
  }

  #start(index: number, onLost: ShardsConfig['onLost']): Worker {
    const workerData: ShardWorkerData = { relayId: this.relay.id, index };
    const worker = new Worker(new URL('./worker.js', import.meta.url), {
      workerData,
      name: threadName('shard', index),
      resourceLimits: HEAP_LIMITS,
    });
    let reason = 'its thread ended';
    worker.on('error', (error) => {
      reason = error.message;
    });
    worker.on('exit', () => {
      if (!this.#closing) onLost(index, reason);
    });
    return worker;
  }
}

/** One piece of memory for all: the kernel gives it page by page, as packets touch it, which small pieces from malloc would not get. */
function makeRings(shards: number, size: number): (Uint8Array | null)[] {
  const memory = new SharedArrayBuffer(shards * (shards - 1) * size);
  let used = 0;
  return Array.from({ length: shards * shards }, (_, pair) => {
    if (Math.floor(pair / shards) === pair % shards) return null;
    const ring = new Uint8Array(memory, used, size);
    used += size;
    return ring;
  });
}

async function firstMessage(worker: Worker): Promise<void> {
  await once(worker, 'message');
}
