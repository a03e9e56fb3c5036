/** Tailscale's own client against derplane, and, to check the checks, against Tailscale's own relay. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { GO_DERPER_TIMEOUT, type GoDerper, startGoDerper } from '../support/go_derper.js';
import { SHARD_COUNTS, withRelay } from '../support/relay.js';
import { BUILD_TIMEOUT, buildDerpinterop, goMissing, runCheck } from './derpinterop.js';

const meshKey = 'c3'.repeat(32);

/** What a program's check proves. */
const promises: [string, string][] = [
  ['handshake', 'shakes hands by 101, by fast start and knowing the key'],
  ['sizes', 'sends packets of 0 to 65,536 bytes both ways'],
  ['order', 'receives 3 streams of 10,000 packets whole and in order'],
  ['ping', 'pings'],
  ['many', 'relays among 200 clients'],
  ['toobig', 'loses only the connection that sends 65,537 bytes'],
  ['duplicate', 'may connect twice with one key'],
  ['peergone', 'hears that an unknown peer is not here'],
  ['disconnect', 'hears that a peer left'],
  ['forward', 'forwards with the mesh key'],
  ['forbidden', 'may not forward without the mesh key'],
  ['http', 'works through derphttp'],
  ['websocket', 'relays packets over WebSocket'],
];

describe.skipIf(goMissing !== undefined)('the Go client', () => {
  beforeAll(buildDerpinterop, BUILD_TIMEOUT);

  describe.each(SHARD_COUNTS)('on derplane with %i shard(s)', (shards) => {
    it.each(promises)('%s: %s', (check) =>
      withRelay({ shards, mesh: { key: meshKey } }, async (relay) => {
        // The first two share a shard, the third lives elsewhere where there is an elsewhere.
        const keys = [0, 0, shards - 1].map((shard) => relay.keyOn(shard).serialize());
        await runCheck(check, { url: relay.url, meshKey, keys });
      }),
    );

    it('keepalive: puts up with KeepAlive between packets', () =>
      withRelay({ shards, timeouts: { keepAliveInterval: 50 } }, (relay) => runCheck('keepalive', { url: relay.url })));
  });

  describe('on the Go relay', () => {
    let relay: GoDerper;
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'derplane-interop-'));
      const pskFile = join(folder, 'psk');
      await writeFile(pskFile, meshKey);
      relay = await startGoDerper({ args: ['-mesh-psk-file', pskFile] });
    }, GO_DERPER_TIMEOUT);
    afterAll(async () => {
      await relay?.close();
      await rm(folder, { recursive: true, force: true });
    });

    it.each(promises)('%s: %s', (check) => runCheck(check, { url: relay.url, meshKey }));
  });
});
