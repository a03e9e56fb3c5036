/** Which numbers each option takes; the command's flags take the same. Defaults and reasons are in `defaults.ts`. */
import { DerpError } from '../errors.js';
import { MAX_SHARDS } from './defaults.js';

/** Integers from `min` to `max`. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

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
  port: { min: 0, max: 65_535 },
  tcpKeepaliveTime: { min: 1_000, max: MAX_TCP_KEEPALIVE },
  tcpUserTimeout: { min: 0, max: MAX_TCP_USER_TIMEOUT },
  drainTime: { min: 0, max: MAX_TIME },
} as const satisfies Record<string, Range>;

/** The path of an option that is a number. */
export type NumberOption = keyof typeof OPTION_RANGES;

/** What a value out of its range is answered with. */
export function rangeText(
  { min, max }: Range,
  kind = 'an integer',
  format: (value: number) => string = String,
): string {
  return `must be ${kind} from ${format(min)} to ${format(max)}`;
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` unless `value` is an integer within the option's range */
export function numberOption(name: NumberOption, value: number): number {
  return integerIn(name, value, OPTION_RANGES[name]);
}

/** @throws DerpError `ERR_DERP_BAD_OPTION` unless `value` is an integer within `range` */
export function integerIn(name: string, value: number, range: Range): number {
  if (Number.isInteger(value) && value >= range.min && value <= range.max) return value;
  throw new DerpError('ERR_DERP_BAD_OPTION', `${name} ${String(value)}: ${rangeText(range)}`);
}
