/** Entry of a shard's worker thread: JavaScript starts and ends the shard, and does nothing in between. */
import { parentPort, workerData } from 'node:worker_threads';
import { native } from '../native.js';

export interface ShardWorkerData {
  relayId: number;
  index: number;
}

const { relayId, index } = workerData as ShardWorkerData;
const port = parentPort!;
const shard = new native.Shard(relayId, index);

// The only message: end.
port.once('message', () => shard.close(() => port.close()));
port.postMessage('ready');
