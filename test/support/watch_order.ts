/** What a watcher hears when other frames come right behind its WatchConns; for our relay and for Tailscale's. */
import { expect } from 'vitest';
import { Frame, frame, type RawClient } from './raw_client.js';
import { Watcher } from './watcher.js';

/** A client of the relay, a mesh peer when asked for. */
export type Connect = (mesh: boolean) => Promise<RawClient>;

const CROWD = 40;

async function crowdAndWatcher(connect: Connect): Promise<{ crowd: RawClient[]; watcher: Watcher; here: string[] }> {
  const crowd = await Promise.all(Array.from({ length: CROWD }, () => connect(false)));
  const watcher = new Watcher(await connect(true));
  const here = [...crowd, watcher.client].map(({ publicKey }) => publicKey.hex).sort();
  return { crowd, watcher, here };
}

/** Closes a client in the write that asks to watch: it is told that the client is there, then that it is gone. */
export async function closeWhileAsking(connect: Connect): Promise<void> {
  const { crowd, watcher, here } = await crowdAndWatcher(connect);
  const victim = crowd[CROWD / 2]!;
  await watcher.client.write(Buffer.concat([frame(Frame.watchConns), frame(Frame.closePeer, victim.publicKey.bytes)]));
  expect([...(await watcher.flood(here.length)).keys()].sort()).toEqual(here);
  await watcher.expectGone(victim);
  await victim.expectClose();
}

/** Asks to watch twice in one write: it is told everything twice, one flood after the other. */
export async function askTwice(connect: Connect): Promise<void> {
  const { watcher, here } = await crowdAndWatcher(connect);
  await watcher.client.write(Buffer.concat([frame(Frame.watchConns), frame(Frame.watchConns)]));
  for (let n = 0; n < 2; n++) expect([...(await watcher.flood(here.length)).keys()].sort()).toEqual(here);
  await watcher.client.settle();
}
