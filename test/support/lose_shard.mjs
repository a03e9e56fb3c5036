/** Loaded before the program (`--import`): SIGUSR2 ends the thread of its first shard, as a crash would. */
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  const shard = new Promise((resolve) => {
    // A shard's first message tells it from the other workers.
    process.on('worker', (worker) => worker.on('message', (message) => message === 'ready' && resolve(worker)));
  });
  process.on('SIGUSR2', async () => (await shard).terminate());
}
