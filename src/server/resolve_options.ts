/** Options of a {@link Server} with their defaults filled in and their ranges checked. */
import { availableParallelism } from 'node:os';
import { DerpError } from '../errors.js';
import { type Logger, silentLogger } from '../log.js';
import * as defaults from './defaults.js';
import { numberOption } from './option_ranges.js';
import type {
  DuplicatePolicy,
  ServerHandshakeOptions,
  ServerMeshOptions,
  ServerOptions,
  ServerQueueOptions,
  ServerTimeoutOptions,
} from './options.js';

export interface ResolvedOptions {
  readonly derp: boolean;
  readonly shards: number;
  readonly duplicatePolicy: DuplicatePolicy;
  readonly logger: Logger;
  readonly logClients: boolean;
  readonly mesh: ServerMeshOptions & Required<Pick<ServerMeshOptions, 'with' | 'insecureHttp' | 'retryInterval'>>;
  readonly handshake: Required<ServerHandshakeOptions>;
  readonly timeouts: Required<ServerTimeoutOptions>;
  readonly queues: Required<ServerQueueOptions>;
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` naming the option, its value and its range */
export function resolveOptions(options: ServerOptions): ResolvedOptions {
  const cores = availableParallelism();
  return {
    derp: options.derp ?? true,
    shards: numberOption('shards', options.shards ?? Math.min(cores, defaults.MAX_SHARDS)),
    duplicatePolicy: duplicatePolicy(options.duplicatePolicy ?? 'last-writer-active'),
    logger: options.logger ?? silentLogger,
    logClients: options.logClients ?? false,
    mesh: resolveMesh(options.mesh ?? {}),
    handshake: resolveHandshake(options.handshake ?? {}, cores),
    timeouts: resolveTimeouts(options.timeouts ?? {}),
    queues: resolveQueues(options.queues ?? {}),
  };
}

function resolveMesh(mesh: ServerMeshOptions): ResolvedOptions['mesh'] {
  return {
    ...mesh,
    with: mesh.with ?? [],
    insecureHttp: mesh.insecureHttp ?? false,
    retryInterval: numberOption('mesh.retryInterval', mesh.retryInterval ?? defaults.MESH_RETRY_INTERVAL),
  };
}

function resolveHandshake(handshake: ServerHandshakeOptions, cores: number): ResolvedOptions['handshake'] {
  const {
    threads = Math.max(1, Math.floor(cores / 4)),
    maxPending = defaults.MAX_HANDSHAKES,
    maxPendingPerSource = Math.max(defaults.MIN_SOURCE_SHARE, Math.floor(maxPending * defaults.SOURCE_SHARE)),
    maxBytes = defaults.MAX_HANDSHAKE_BYTES,
    requestTimeout = defaults.REQUEST_TIMEOUT,
    firstByteTimeout = Math.min(defaults.FIRST_BYTE_TIMEOUT, requestTimeout),
    clientInfoTimeout = defaults.CLIENT_INFO_TIMEOUT,
  } = handshake;
  return {
    threads: numberOption('handshake.threads', threads),
    maxPending: numberOption('handshake.maxPending', maxPending),
    maxPendingPerSource: numberOption('handshake.maxPendingPerSource', maxPendingPerSource),
    maxBytes: numberOption('handshake.maxBytes', maxBytes),
    firstByteTimeout: numberOption('handshake.firstByteTimeout', firstByteTimeout),
    requestTimeout: numberOption('handshake.requestTimeout', requestTimeout),
    clientInfoTimeout: numberOption('handshake.clientInfoTimeout', clientInfoTimeout),
  };
}

function resolveTimeouts(timeouts: ServerTimeoutOptions): ResolvedOptions['timeouts'] {
  const {
    write = defaults.WRITE_TIMEOUT,
    keepAliveInterval = defaults.KEEP_ALIVE_INTERVAL,
    rttInterval = defaults.RTT_INTERVAL,
  } = timeouts;
  return {
    write: numberOption('timeouts.write', write),
    keepAliveInterval: numberOption('timeouts.keepAliveInterval', keepAliveInterval),
    rttInterval: numberOption('timeouts.rttInterval', rttInterval),
  };
}

function resolveQueues(queues: ServerQueueOptions): ResolvedOptions['queues'] {
  const { depth = defaults.QUEUE_DEPTH, maxBytes = defaults.MAX_QUEUE_BYTES, ringBytes = defaults.RING_BYTES } = queues;
  return {
    depth: numberOption('queues.depth', depth),
    maxBytes: numberOption('queues.maxBytes', maxBytes),
    ringBytes: numberOption('queues.ringBytes', ringBytes),
  };
}

function duplicatePolicy(value: DuplicatePolicy): DuplicatePolicy {
  if (value === 'last-writer-active' || value === 'disable-fighters') return value;
  throw new DerpError(
    'ERR_DERP_BAD_OPTION',
    `duplicatePolicy ${JSON.stringify(value)}: must be last-writer-active or disable-fighters`,
  );
}

/** Bytes of each ring's data: the budget shared out, as a power of two. */
export function ringSize(budget: number, shards: number): number {
  const share = budget / Math.max(1, shards * (shards - 1));
  const size = 2 ** Math.floor(Math.log2(Math.max(1, share)));
  return Math.min(Math.max(size, defaults.MIN_RING_BYTES), defaults.MAX_RING_BYTES);
}
