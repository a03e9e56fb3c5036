/** Tailscale's own client, with Go's TLS, against derplane. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, inject, it } from 'vitest';
import { SHARD_COUNTS, withRelay } from '../support/relay.js';
import { BUILD_TIMEOUT, buildDerpinterop, goMissing, runCheck } from './derpinterop.js';

const meshKey = 'c4'.repeat(32);

/** What a program's check proves. */
const promises: [string, string][] = [
  ['handshake', 'shakes hands by 101, by fast start and knowing the key'],
  ['sizes', 'sends packets of 0 to 65,536 bytes both ways'],
  ['order', 'receives 3 streams of 10,000 packets whole and in order'],
  ['many', 'relays among 200 clients'],
  ['toobig', 'loses only the connection that sends 65,537 bytes'],
  ['disconnect', 'hears that a peer left'],
  ['forward', 'forwards with the mesh key'],
  ['http', 'works through derphttp, which reads the relay’s key from its meta certificate'],
];

describe.skipIf(goMissing !== undefined)('the Go client over TLS', () => {
  let folder: string;
  let trust: string;
  beforeAll(async () => {
    await buildDerpinterop();
    folder = await mkdtemp(join(tmpdir(), 'derplane-go-tls-'));
    trust = join(folder, 'relay.crt');
    await writeFile(trust, inject('relayCertificate').cert);
  }, BUILD_TIMEOUT);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  describe.each(SHARD_COUNTS)('on derplane with %i shard(s)', (shards) => {
    it.each(promises)('%s: %s', (check) =>
      withRelay({ shards, mesh: { key: meshKey }, tls: true }, async (relay) => {
        const keys = [0, 0, shards - 1].map((shard) => relay.keyOn(shard).serialize());
        await runCheck(check, { url: relay.url, meshKey, keys, trust });
      }),
    );
  });
});
