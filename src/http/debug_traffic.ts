/** /debug/traffic: every 2 s a line for each connection that moved bytes since, then an empty line, until the client disconnects. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConnectionTraffic } from '../server/traffic.js';

/** What the page needs from a relay; {@link Server} implements it. */
export interface TrafficSource {
  traffic(): Promise<ConnectionTraffic[]>;
}

/** Milliseconds between two rounds; derper's. */
const INTERVAL = 2_000;

/**
 * Writes rounds to `response` until the response or the relay is closed.
 *
 * @param countsSenders - whether lines show from how many keys a client received packets
 */
export async function streamTraffic(
  relay: TrafficSource,
  countsSenders: boolean,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  let before = new Map<number, ConnectionTraffic>();
  try {
    while (!gone.signal.aborted) {
      const now = new Map((await relay.traffic()).map((connection) => [connection.id, connection]));
      const moved = [...now.values()].filter((connection) => hasMoved(connection, before.get(connection.id)));
      before = now;
      const room = response.write(`${moved.map((connection) => line(connection, countsSenders)).join('')}\n`);
      if (!room) await once(response, 'drain', { signal: gone.signal });
      await sleep(INTERVAL, undefined, { signal: gone.signal });
    }
  } catch (error) {
    // The client disconnected or the relay closed: the stream ends.
    if (!gone.signal.aborted) response.end(`${(error as Error).message}\n`);
  }
}

function hasMoved(now: ConnectionTraffic, before: ConnectionTraffic | undefined): boolean {
  return now.sent > (before?.sent ?? 0) || now.received > (before?.received ?? 0);
}

function line({ key, sent, received, uniqueSenders }: ConnectionTraffic, countsSenders: boolean): string {
  const senders = countsSenders && uniqueSenders > 0 ? { UniqueSenders: uniqueSenders } : {};
  return `${JSON.stringify({ Sent: sent, Recv: received, Key: key.toString(), ...senders })}\n`;
}
