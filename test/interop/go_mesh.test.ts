/** Regions of derplane and Tailscale's own relay library: each is both ends of links to the other. */
import { type Listener, PrivateKey, Server } from 'derplane';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { LogWatch } from '../support/log_watch.js';
import { SHARD_COUNTS } from '../support/relay.js';
import { BUILD_TIMEOUT, buildDerpinterop, type GoRelay, goMissing, runCheck, startGoRelay } from './derpinterop.js';

const meshKey = '7d'.repeat(32);
/** Go's mesh client waits 5 s between attempts. */
const HEALING_TIMEOUT = 90_000;

describe.skipIf(goMissing !== undefined)('a region with the Go relay', () => {
  beforeAll(buildDerpinterop, BUILD_TIMEOUT);

  describe.each(SHARD_COUNTS)('and derplane with %i shard(s)', (shards) => {
    const goKey = PrivateKey.generate().serialize();
    const ourKey = PrivateKey.generate();
    let go: GoRelay;
    const ours: { server: Server; listener: Listener; log: LogWatch }[] = [];

    afterEach(async () => {
      for (const { server } of ours) await server.consistencyCheck();
      await go.consistencyCheck();
      for (const { server } of ours.splice(0)) await server.close();
      await go.close();
    });

    async function startOurs(host: string, port = 0, key = PrivateKey.generate()): Promise<void> {
      const log = new LogWatch();
      const server = new Server(key, {
        shards,
        handshake: { threads: 1 },
        mesh: { key: meshKey, retryInterval: 50 },
        logger: log,
      });
      ours.push({ server, listener: await server.listen({ host, port }), log });
    }

    const hostOf = ({ listener }: { listener: Listener }) => `http://${listener.host}:${listener.port}`;
    const urlOf = (relay: { listener: Listener }) => `${hostOf(relay)}/derp`;
    const goHost = () => new URL(go.url).origin;

    /** Every relay gets a link to every relay, itself included. */
    async function link(): Promise<void> {
      for (const { server } of ours) {
        for (const other of ours) server.addMeshPeer(hostOf(other));
        server.addMeshPeer(goHost());
      }
      for (const relay of ours) await go.mesh(urlOf(relay));
      await go.mesh(go.url);
    }

    /** Packets cross between all relays, seen from either side. */
    async function expectRegion(check = 'region'): Promise<void> {
      const urls = ours.map(urlOf);
      await runCheck(check, { url: go.url, others: urls, meshKey });
      await runCheck(check, { url: urls[0]!, others: [...urls.slice(1), go.url], meshKey });
    }

    it('carries packets both ways, whole and in order, and tells who left', async () => {
      go = await startGoRelay('127.0.0.1:0', meshKey, goKey);
      await startOurs('127.0.0.2');
      await link();
      await expectRegion();
      await expectRegion('regionsizes');
      // Each took its share over a link, and no queue overflowed.
      type Figures = { packets_forwarded_in: number; packets_dropped: Record<string, { other: number }> };
      const [mine, theirs] = [ours[0]!.server.expVar() as unknown as Figures, await go.vars()];
      expect(mine.packets_forwarded_in).toBeGreaterThan(4_000);
      expect(theirs.packets_forwarded_in).toBeGreaterThan(4_000);
      expect(mine.packets_dropped.queue_head!.other).toBe(0);
      expect(mine.packets_dropped.unknown_dest_on_fwd!.other).toBe(0);
    });

    it('may have two relays of ours', async () => {
      go = await startGoRelay('127.0.0.1:0', meshKey, goKey);
      await startOurs('127.0.0.2');
      await startOurs('127.0.0.3');
      await link();
      await Promise.all(ours.map(({ log }) => log.line(/self-connect/)));
      await expectRegion();
    });

    it('heals when the Go relay was killed', { timeout: HEALING_TIMEOUT }, async () => {
      go = await startGoRelay('127.0.0.1:0', meshKey, goKey);
      const { host } = new URL(go.url);
      await startOurs('127.0.0.2');
      await link();
      await expectRegion();
      await go.close();
      await ours[0]!.log.line(/Recv: /);
      go = await startGoRelay(host, meshKey, goKey);
      await go.mesh(urlOf(ours[0]!));
      await expectRegion();
    });

    it('heals when derplane was ended', { timeout: HEALING_TIMEOUT }, async () => {
      go = await startGoRelay('127.0.0.1:0', meshKey, goKey);
      await startOurs('127.0.0.2', 0, ourKey);
      await link();
      await expectRegion();
      const [{ server, listener }] = ours.splice(0) as [(typeof ours)[number]];
      await server.close();
      await startOurs('127.0.0.2', listener.port, ourKey);
      ours[0]!.server.addMeshPeer(goHost());
      // Go's link is there again once its watcher is; the check's own patience is shorter than Go's redial.
      await expect
        .poll(() => Number(ours[0]!.server.expVar().gauge_watchers), { timeout: HEALING_TIMEOUT })
        .toBeGreaterThan(0);
      await expectRegion();
    });
  });
});
