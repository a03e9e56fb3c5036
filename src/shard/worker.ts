/** Entry of a shard's worker thread: JavaScript starts and ends the shard, and does nothing in between. */
import { parentPort, workerData } from 'node:worker_threads';
import { native } from '../native.js';
import { threadName } from '../thread_name.js';

export interface ShardWorkerData {
  relayId: number;
  index: number;
}

const { relayId, index } = workerData as ShardWorkerData;
native.setThreadName(threadName('shard', index));
const port = parentPort!;
const shard = new native.Shard(relayId, index);

// The only message: end.
port.once('message', () => shard.close(() => port.close()));
port.postMessage('ready');
