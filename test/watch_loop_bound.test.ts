/** A relay that reports clients without end does not fill the memory of the watch loop that listens to it. */
import { PrivateKey, PublicKey } from 'derplane';
import { expect, it } from 'vitest';
import { MAX_WATCHED_KEYS } from '../dist/client/defaults.js';
import { type WatchingClient, watchLoop } from '../dist/client/watch_loop.js';
import { LogWatch } from './support/log_watch.js';

const BEYOND = 5;

it('knows 1,048,576 keys, ignores more, says so once, and takes back what it knows', { timeout: 120_000 }, async () => {
  const ending = new AbortController();
  const log = new LogWatch();
  const bytes = Buffer.alloc(32);
  let told = 0;
  const client: WatchingClient = {
    url: new URL('http://relay.test/derp'),
    publicKey: PrivateKey.generate().publicKey,
    serverPublicKey: PrivateKey.generate().publicKey,
    watchConnectionChanges: async () => undefined,
    close: () => undefined,
    recvDetail: async () => {
      if (told === MAX_WATCHED_KEYS + BEYOND) {
        ending.abort();
        throw new Error('the end');
      }
      bytes.writeUInt32BE(++told);
      const key = PublicKey.fromBytes(Buffer.from(bytes));
      return { message: { type: 'peerPresent', key, flags: 1 }, generation: 1 };
    },
  };
  let added = 0;
  let removed = 0;
  await watchLoop(client, ending.signal, { add: () => added++, remove: () => removed++, logger: log });
  expect(added).toBe(MAX_WATCHED_KEYS);
  expect(removed).toBe(MAX_WATCHED_KEYS);
  expect(log.lines.filter((line) => line.includes('more than 1048576 clients'))).toHaveLength(1);
});
