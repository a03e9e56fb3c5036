/**
 * Which clients a rollout percentage admits. Every derper makes the same choice for an address, so a client that asks several
 * relays gets the same answer. The choice depends on the first number of Go's PCG generator, seeded with the address.
 */
import { addressBytes } from '../ip_address.js';

const MASK = (1n << 64n) - 1n;
/** PCG's 128-bit multiplier and increment. */
const MULTIPLIER = (2549297995355413924n << 64n) | 4865540595714422341n;
const INCREMENT = (6364136223846793005n << 64n) | 1442695040888963407n;
/** Multiplier of PCG's output function DXSM. */
const OUTPUT_MULTIPLIER = 0xda942042e4dd58b5n;

/**
 * Whether a client is in the rollout.
 *
 * @param address - the client's IP address; a loopback address is chosen anew for each request, as in derper
 * @param percentage - 0 to 100
 * @param random - from 0 to below 1, for loopback
 */
export function isInRollout(address: string, percentage: number, random: () => number = Math.random): boolean {
  if (percentage <= 0) return false;
  if (percentage >= 100) return true;
  const bytes = addressBytes(address);
  if (bytes === undefined) return false;
  if (isLoopback(bytes)) return random() < 0.5;
  return percentage / 100 > firstFloat(bytes.readBigUInt64LE(0), bytes.readBigUInt64LE(8));
}

/** The first `Float64()` of Go's `rand.New(rand.NewPCG(high, low))`: from 0 to below 1. */
export function firstFloat(high: bigint, low: bigint): number {
  const state = (((high << 64n) | low) * MULTIPLIER + INCREMENT) & ((1n << 128n) - 1n);
  const oddLow = (state & MASK) | 1n;
  let output = state >> 64n;
  output ^= output >> 32n;
  output = (output * OUTPUT_MULTIPLIER) & MASK;
  output ^= output >> 48n;
  output = (output * oddLow) & MASK;
  return Number(output & ((1n << 53n) - 1n)) / 2 ** 53;
}

function isLoopback(bytes: Buffer): boolean {
  const isMapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes.readUInt16BE(10) === 0xffff;
  return isMapped ? bytes[12] === 127 : bytes.subarray(0, 15).every((byte) => byte === 0) && bytes[15] === 1;
}
