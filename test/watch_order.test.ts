/** Frames that come in one write with WatchConns wait for its flood, as with derper 1.102.5 and 1.104.5. */
import { describe, it } from 'vitest';
import { SHARD_COUNTS, withRelay } from './support/relay.js';
import { askTwice, type Connect, closeWhileAsking } from './support/watch_order.js';

const meshKey = '2b'.repeat(32);

describe.each(SHARD_COUNTS)('a watcher of a relay with %i shard(s)', (shards) => {
  const withConnect = (body: (connect: Connect) => Promise<void>) =>
    withRelay({ shards, mesh: { key: meshKey } }, (relay) =>
      body((mesh) => relay.connect({ fastStart: true, ...(mesh && { meshKey }) })),
    );

  it('that closes a client in the same write first hears of it, then that it is gone', () =>
    withConnect(closeWhileAsking));

  it('that asks twice in one write hears everything twice, one flood after the other', () => withConnect(askTwice));
});
