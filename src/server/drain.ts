import { setTimeout as sleep } from 'node:timers/promises';
import type { NativeRelay } from '../native.js';
import { DRAIN_POLL_INTERVAL, RESTART_TRY_FOR } from './defaults.js';

/**
 * Tells every client that the relay restarts, and closes them one after another. Resolves when all are gone, when `time` (milliseconds)
 * is over, or when `hurry` is aborted.
 * @param clients - how many there are
 */
export async function drain(
  relay: NativeRelay,
  clients: () => number,
  time: number,
  hurry: AbortSignal,
): Promise<void> {
  const end = performance.now() + time;
  // No relay listens here until the time is over; a successor on this address follows soon after.
  relay.drain(time, time, RESTART_TRY_FOR);
  while (clients() > 0 && performance.now() < end && !hurry.aborted) {
    // Counters in shared memory raise no events. An abort ends the wait early, which the condition then sees.
    await sleep(DRAIN_POLL_INTERVAL, undefined, { signal: hurry }).catch(() => {});
  }
}
