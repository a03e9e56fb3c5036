/** The file of `-rate-config`, as derper reads it. */
import { readBounded } from '../bounded_file.js';
import { goInteger, type JsonValue, readGoObject } from '../protocol/go_json.js';

/** The contents of the file; zero for missing values. */
export interface RateConfig {
  /** Bytes per second that each client may send; 0 = no limit. */
  bytesPerSecond: number;
  /** Bytes. */
  burst: number;
}

/** Bytes of a file that is surely none of ours. */
const MAX_SIZE = 64 << 10;

/**
 * Reads the file again.
 * @throws Error saying whether it cannot be read or what is wrong with it
 */
export function readRateConfig(path: string): RateConfig {
  return parseRateConfig(readSmallFile(path));
}

/**
 * Reads `{"PerClientRateLimitBytesPerSec":N,"PerClientRateBurstBytes":N}` under Go's rules.
 * @throws Error saying what is wrong
 */
export function parseRateConfig(json: Buffer): RateConfig {
  const config: RateConfig = { bytesPerSecond: 0, burst: 0 };
  try {
    readGoObject(json, {
      perclientratelimitbytespersec(value) {
        config.bytesPerSecond = bytes(value) ?? config.bytesPerSecond;
      },
      perclientrateburstbytes(value) {
        config.burst = bytes(value) ?? config.burst;
      },
    });
  } catch (cause) {
    throw new Error(`error parsing rate config: ${(cause as Error).message}`, { cause });
  }
  return config;
}

function readSmallFile(path: string): Buffer {
  try {
    return readBounded(path, MAX_SIZE);
  } catch (cause) {
    throw new Error(`error reading rate config: ${(cause as Error).message}`, { cause });
  }
}

/** A number of bytes, capped at 2^53, which no client reaches. */
function bytes(value: JsonValue): number | undefined {
  if (value.text.startsWith('-')) throw new Error('needs an integer from 0 on');
  const integer = goInteger(value);
  return integer === undefined ? undefined : Math.min(integer, Number.MAX_SAFE_INTEGER);
}
