/** Options of a {@link Server}, checked, and with their defaults filled in. */
import { ADMISSION_CHECKS, type ResolvedAdmission, type ServerAdmissionOptions } from '../admission/options.js';
import {
  arrayOf,
  badOption,
  type Checks,
  checkBoolean,
  checkLogger,
  checkOptions,
  checkString,
  oneOf,
  wrong,
} from '../checks.js';
import { type Logger, silentLogger } from '../log.js';
import { checkRanges } from '../proxies.js';
import { checkPem } from '../tls/pem_option.js';
import * as defaults from './defaults.js';
import { numberOption } from './option_ranges.js';
import type {
  DuplicatePolicy,
  ServerAcceptLimit,
  ServerHandshakeOptions,
  ServerMeshOptions,
  ServerOptions,
  ServerQueueOptions,
  ServerTimeoutOptions,
} from './options.js';
import { planThreads } from './thread_plan.js';

export interface ResolvedOptions {
  readonly derp: boolean;
  readonly shards: number;
  readonly duplicatePolicy: DuplicatePolicy;
  readonly logger: Logger;
  readonly logClients: boolean;
  readonly mesh: ServerMeshOptions &
    Required<Pick<ServerMeshOptions, 'with' | 'insecureHttp' | 'retryInterval' | 'dnsInterval'>>;
  readonly admission: ResolvedAdmission;
  readonly trustProxy: readonly string[];
  readonly acceptLimit: Required<ServerAcceptLimit>;
  readonly handshake: Required<ServerHandshakeOptions>;
  readonly timeouts: Required<ServerTimeoutOptions>;
  readonly queues: Required<ServerQueueOptions>;
}

/** What each option takes. Text with its own form (keys, hosts) is parsed where it is used. */
const CHECKS: Checks<ServerOptions> = {
  derp: checkBoolean,
  shards: numberOption('shards'),
  duplicatePolicy: oneOf(['last-writer-active', 'disable-fighters']),
  logger: checkLogger,
  logClients: checkBoolean,
  mesh: {
    key: checkString,
    with: arrayOf(checkString),
    ca: checkPem,
    insecureHttp: checkBoolean,
    retryInterval: numberOption('mesh.retryInterval'),
    dnsInterval: numberOption('mesh.dnsInterval'),
    hostname: checkString,
  },
  admission: ADMISSION_CHECKS,
  trustProxy: checkRanges,
  acceptLimit: { perSecond: checkAmount, burst: checkAmount },
  handshake: {
    threads: numberOption('handshake.threads'),
    maxPending: numberOption('handshake.maxPending'),
    maxPendingPerSource: numberOption('handshake.maxPendingPerSource'),
    maxBytes: numberOption('handshake.maxBytes'),
    firstByteTimeout: numberOption('handshake.firstByteTimeout'),
    requestTimeout: numberOption('handshake.requestTimeout'),
    clientInfoTimeout: numberOption('handshake.clientInfoTimeout'),
  },
  timeouts: {
    write: numberOption('timeouts.write'),
    keepAliveInterval: numberOption('timeouts.keepAliveInterval'),
    rttInterval: numberOption('timeouts.rttInterval'),
  },
  queues: {
    depth: numberOption('queues.depth'),
    maxBytes: numberOption('queues.maxBytes'),
    ringBytes: numberOption('queues.ringBytes'),
  },
};

/** @throws DerpError `ERR_DERP_BAD_OPTION` naming the option, its value and what it takes */
export function resolveOptions(options: ServerOptions): ResolvedOptions {
  checkOptions(options, 'options', CHECKS);
  const { mesh = {}, handshake = {}, timeouts = {}, queues = {} } = options;
  const threads = planThreads({
    shards: options.shards,
    handshakeThreads: handshake.threads,
    ringBytes: queues.ringBytes ?? defaults.RING_BYTES,
  });
  return {
    derp: options.derp ?? true,
    shards: threads.shards,
    duplicatePolicy: options.duplicatePolicy ?? 'last-writer-active',
    logger: options.logger ?? silentLogger,
    logClients: options.logClients ?? false,
    mesh: {
      ...mesh,
      with: mesh.with ?? [],
      insecureHttp: mesh.insecureHttp ?? false,
      retryInterval: mesh.retryInterval ?? defaults.MESH_RETRY_INTERVAL,
      dnsInterval: mesh.dnsInterval ?? defaults.MESH_DNS_INTERVAL,
    },
    admission: { urlFailOpen: true, urlCache: 0, admitTimeout: defaults.ADMIT_TIMEOUT, ...given(options.admission) },
    trustProxy: options.trustProxy ?? [],
    acceptLimit: resolveAcceptLimit(options.acceptLimit ?? {}),
    handshake: resolveHandshake(handshake, threads.handshakeThreads),
    timeouts: {
      write: timeouts.write ?? defaults.WRITE_TIMEOUT,
      keepAliveInterval: timeouts.keepAliveInterval ?? defaults.KEEP_ALIVE_INTERVAL,
      rttInterval: timeouts.rttInterval ?? defaults.RTT_INTERVAL,
    },
    queues: {
      depth: queues.depth ?? defaults.QUEUE_DEPTH,
      maxBytes: queues.maxBytes ?? defaults.MAX_QUEUE_BYTES,
      ringBytes: queues.ringBytes ?? defaults.RING_BYTES,
    },
  };
}

/** Without options that are undefined, which would hide a default. */
function given(options: ServerAdmissionOptions = {}): ServerAdmissionOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** A number from 0 on, which may be infinite. */
function checkAmount(value: unknown, name: string): void {
  if (typeof value !== 'number') wrong(name, value, 'a number');
  if (!(value >= 0)) throw badOption(`${name} ${value}: must be a number from 0 on`);
}

/** Without a burst the bucket is endless and nothing is limited, as by default in derper. */
function resolveAcceptLimit({
  perSecond = Number.POSITIVE_INFINITY,
  burst = Number.POSITIVE_INFINITY,
}: ServerAcceptLimit): Required<ServerAcceptLimit> {
  return { perSecond: burst === Number.POSITIVE_INFINITY ? burst : perSecond, burst };
}

function resolveHandshake(handshake: ServerHandshakeOptions, threads: number): ResolvedOptions['handshake'] {
  const { maxPending = defaults.MAX_HANDSHAKES, requestTimeout = defaults.REQUEST_TIMEOUT } = handshake;
  const sourceShare = Math.max(defaults.MIN_SOURCE_SHARE, Math.floor(maxPending * defaults.SOURCE_SHARE));
  return {
    threads,
    maxPending,
    maxPendingPerSource: handshake.maxPendingPerSource ?? sourceShare,
    maxBytes: handshake.maxBytes ?? defaults.MAX_HANDSHAKE_BYTES,
    firstByteTimeout: handshake.firstByteTimeout ?? Math.min(defaults.FIRST_BYTE_TIMEOUT, requestTimeout),
    requestTimeout,
    clientInfoTimeout: handshake.clientInfoTimeout ?? defaults.CLIENT_INFO_TIMEOUT,
  };
}

/** Bytes of each ring's data: the budget shared out, as a power of two. */
export function ringSize(budget: number, shards: number): number {
  const share = budget / Math.max(1, shards * (shards - 1));
  const size = 2 ** Math.floor(Math.log2(Math.max(1, share)));
  return Math.min(Math.max(size, defaults.MIN_RING_BYTES), defaults.MAX_RING_BYTES);
}
