/** Which numbers each option takes; the command's flags take the same. Defaults and reasons are in `defaults.ts`. */
import { type Check, integerIn, type Range } from '../checks.js';
import { MAX_SHARDS } from './defaults.js';

/** Milliseconds: a day; longer times are surely mistakes, and overflow nothing. */
export const MAX_TIME = 86_400_000;

/** Bytes: 1 TiB; more is surely a mistake. */
const MAX_BYTES = 2 ** 40;

/** Longest time that the kernel takes for TCP_KEEPIDLE, milliseconds. */
const MAX_TCP_KEEPALIVE = 32_767_000;

/** Longest time that the kernel takes for TCP_USER_TIMEOUT, milliseconds. */
const MAX_TCP_USER_TIMEOUT = 2 ** 31 - 1;

/** By the path of the option, as error messages name it. */
export const OPTION_RANGES = {
  shards: { min: 1, max: MAX_SHARDS },
  'mesh.retryInterval': { min: 1, max: MAX_TIME },
  'mesh.dnsInterval': { min: 1, max: MAX_TIME },
  'handshake.threads': { min: 1, max: 64 },
  'handshake.maxPending': { min: 1, max: 1 << 20 },
  'handshake.maxPendingPerSource': { min: 1, max: 1 << 20 },
  'handshake.maxBytes': { min: 1, max: MAX_BYTES },
  'handshake.firstByteTimeout': { min: 1, max: MAX_TIME },
  'handshake.requestTimeout': { min: 1, max: MAX_TIME },
  'handshake.clientInfoTimeout': { min: 1, max: MAX_TIME },
  'timeouts.write': { min: 0, max: MAX_TIME },
  'timeouts.keepAliveInterval': { min: 1, max: MAX_TIME },
  'timeouts.rttInterval': { min: 0, max: MAX_TIME },
  'queues.depth': { min: 1, max: 65_536 },
  'queues.maxBytes': { min: 0, max: MAX_BYTES },
  'queues.ringBytes': { min: 0, max: MAX_BYTES },
  'admission.urlCache': { min: 0, max: MAX_TIME },
  'admission.admitTimeout': { min: 1, max: MAX_TIME },
  answersPerSecond: { min: 0, max: 10_000_000 },
  port: { min: 0, max: 65_535 },
  tcpKeepaliveTime: { min: 1_000, max: MAX_TCP_KEEPALIVE },
  tcpUserTimeout: { min: 0, max: MAX_TCP_USER_TIMEOUT },
  drainTime: { min: 0, max: MAX_TIME },
} as const satisfies Record<string, Range>;

/** The path of an option that is a number. */
export type NumberOption = keyof typeof OPTION_RANGES;

/** The check of an option that is a number. */
export function numberOption(path: NumberOption): Check {
  return integerIn(OPTION_RANGES[path]);
}
