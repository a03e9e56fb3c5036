/** Options of a {@link Server} with their defaults filled in and their ranges checked. */
import { availableParallelism } from 'node:os';
import { DerpError } from '../errors.js';
import * as defaults from './defaults.js';
import type { DuplicatePolicy, ServerOptions } from './options.js';

export interface ResolvedOptions {
  derp: boolean;
  shards: number;
  handshakeThreads: number;
  /** Bytes of each ring's data, a power of two. */
  ringSize: number;
  queueDepth: number;
  writeTimeout: number;
  keepAliveInterval: number;
  rttInterval: number;
  requestTimeout: number;
  clientInfoTimeout: number;
  maxHandshakes: number;
  maxHandshakeBytes: number;
  maxQueueBytes: number;
  meshRetryInterval: number;
  duplicatePolicy: DuplicatePolicy;
}

/** Milliseconds: a day; longer times are surely mistakes, and overflow nothing. */
export const MAX_TIME = 86_400_000;
const MAX_BYTES = 2 ** 40;

/** @throws DerpError `ERR_DERP_BAD_OPTION` naming the option, its value and its range */
export function resolveOptions(options: ServerOptions): ResolvedOptions {
  const cores = availableParallelism();
  const shards = integerOption(
    'shards',
    options.shards ?? Math.min(cores, defaults.MAX_SHARDS),
    1,
    defaults.MAX_SHARDS,
  );
  const threads = options.handshakeThreads ?? Math.max(1, Math.floor(cores / 4));
  const ringBytes = integerOption('ringBytes', options.ringBytes ?? defaults.RING_BYTES, 0, MAX_BYTES);
  const time = (name: keyof ServerOptions, fallback: number, min: number) =>
    integerOption(name, (options[name] as number | undefined) ?? fallback, min, MAX_TIME);
  return {
    derp: options.derp ?? true,
    shards,
    handshakeThreads: integerOption('handshakeThreads', threads, 1, 256),
    ringSize: ringSize(ringBytes, shards),
    queueDepth: integerOption('queueDepth', options.queueDepth ?? defaults.QUEUE_DEPTH, 1, 65_536),
    writeTimeout: time('writeTimeout', defaults.WRITE_TIMEOUT, 0),
    keepAliveInterval: time('keepAliveInterval', defaults.KEEP_ALIVE_INTERVAL, 1),
    rttInterval: time('rttInterval', defaults.RTT_INTERVAL, 0),
    requestTimeout: time('requestTimeout', defaults.REQUEST_TIMEOUT, 1),
    clientInfoTimeout: time('clientInfoTimeout', defaults.CLIENT_INFO_TIMEOUT, 1),
    maxHandshakes: integerOption('maxHandshakes', options.maxHandshakes ?? defaults.MAX_HANDSHAKES, 1, 1 << 20),
    maxHandshakeBytes: integerOption(
      'maxHandshakeBytes',
      options.maxHandshakeBytes ?? defaults.MAX_HANDSHAKE_BYTES,
      1,
      MAX_BYTES,
    ),
    maxQueueBytes: integerOption('maxQueueBytes', options.maxQueueBytes ?? defaults.MAX_QUEUE_BYTES, 0, MAX_BYTES),
    meshRetryInterval: time('meshRetryInterval', defaults.MESH_RETRY_INTERVAL, 1),
    duplicatePolicy: duplicatePolicy(options.duplicatePolicy ?? 'last-writer-active'),
  };
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` unless `value` is an integer from `min` to `max` */
export function integerOption(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new DerpError('ERR_DERP_BAD_OPTION', `${name} ${value}: must be an integer from ${min} to ${max}`);
}

function duplicatePolicy(value: DuplicatePolicy): DuplicatePolicy {
  if (value === 'last-writer-active' || value === 'disable-fighters') return value;
  throw new DerpError(
    'ERR_DERP_BAD_OPTION',
    `duplicatePolicy ${JSON.stringify(value)}: must be last-writer-active or disable-fighters`,
  );
}

/** The budget shared out, as a power of two. */
function ringSize(budget: number, shards: number): number {
  const share = budget / Math.max(1, shards * (shards - 1));
  const size = 2 ** Math.floor(Math.log2(Math.max(1, share)));
  return Math.min(Math.max(size, defaults.MIN_RING_BYTES), defaults.MAX_RING_BYTES);
}
