/** Tailscale's relay answers frames right behind WatchConns as ours does (../watch_order.test.ts). */
import { afterEach, beforeAll, describe, it } from 'vitest';
import { PrivateKey } from '../../dist/protocol/key.js';
import { RawClient } from '../support/raw_client.js';
import { askTwice, closeWhileAsking } from '../support/watch_order.js';
import { BUILD_TIMEOUT, buildDerpinterop, type GoRelay, goMissing, startGoRelay } from './derpinterop.js';

const meshKey = '2b'.repeat(32);

describe.skipIf(goMissing)('a watcher of the Go relay', () => {
  let relay: GoRelay | undefined;
  const clients: RawClient[] = [];
  beforeAll(buildDerpinterop, BUILD_TIMEOUT);
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    await relay?.close();
  });

  it.each([
    ['that closes a client in the same write first hears of it, then that it is gone', closeWhileAsking],
    ['that asks twice in one write hears everything twice, one flood after the other', askTwice],
  ])('%s', async (_, check) => {
    relay = await startGoRelay('127.0.0.1:0', meshKey, PrivateKey.generate().serialize());
    const port = Number(new URL(relay.url).port);
    await check(async (mesh) => {
      const client = await RawClient.dial(port);
      clients.push(client);
      return client.open(mesh ? { meshKey } : {});
    });
  });
});
