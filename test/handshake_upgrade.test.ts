/** The ways in which a client may ask for DERP, and what it is answered. */
import { describe, expect, it } from 'vitest';
import {
  clientInfoBody,
  Frame,
  frame,
  MAGIC,
  type RawClient,
  sendPacketFrame,
  type UpgradeOptions,
  upgradeHead,
} from './support/raw_client.js';
import { SHARD_COUNTS, type TestRelay, withRelay } from './support/relay.js';

describe.each(SHARD_COUNTS)('the upgrade to DERP at a relay with %i shard(s)', (shards) => {
  it('is answered 101 with version and key, then ServerKey and ServerInfo', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.dial();
      await client.write(upgradeHead());
      const [status, ...lines] = (await client.readHead()).split('\r\n');
      expect(status).toBe('HTTP/1.1 101 Switching Protocols');
      const { hex } = relay.server.publicKey;
      expect(lines).toEqual(
        expect.arrayContaining(['Upgrade: DERP', 'Connection: Upgrade', 'Derp-Version: 2', `Derp-Public-Key: ${hex}`]),
      );
      const body = await client.expectFrame(Frame.serverKey);
      expect(body).toEqual(Buffer.concat([MAGIC, relay.server.publicKey.bytes]));
      client.serverKey = body.subarray(MAGIC.length);
      await client.write(
        frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey: relay.server.publicKey.bytes })),
      );
      expect(await client.readServerInfo()).toEqual({ version: 2 });
      await client.settle();
    }));

  it('with fast start is answered by ServerKey alone', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.dial();
      await client.write(upgradeHead({ fastStart: true }));
      expect(await client.readServerKey()).toEqual(Buffer.from(relay.server.publicKey.bytes));
    }));

  const forms: [string, UpgradeOptions][] = [
    ['Upgrade: derp', { lines: ['Upgrade: derp', 'Connection: Upgrade'] }],
    ['upgrade: dErP', { lines: ['upgrade: dErP', 'connection: upgrade'] }],
    ['UPGRADE:DERP', { lines: ['UPGRADE:DERP'] }],
    ['blanks around the value', { lines: ['Upgrade: \t DERP \t', 'Connection: keep-alive, Upgrade'] }],
    ['no Connection header', { lines: ['Upgrade: DERP'] }],
    ['HTTP/1.0', { version: '1.0' }],
    ['POST', { method: 'POST' }],
    ['a query string', { path: '/derp?x=/other' }],
    ['Ideal-Node', { lines: ['Upgrade: DERP', 'Connection: Upgrade', 'Ideal-Node: 900a'] }],
    ['a head of 8,000 bytes', { lines: ['Upgrade: DERP', `X-Padding: ${'x'.repeat(7_900)}`] }],
    ['websocket without the subprotocol', { lines: ['Upgrade: websocket', 'Connection: Upgrade'] }],
  ];
  it.each(forms)('may be asked for with %s', (_, options) =>
    withRelay({ shards }, async (relay) => {
      for (const fastStart of [false, true]) await expectRelays(relay, await relay.connect({ ...options, fastStart }));
    }),
  );

  it.each(['0', 'true', '', '11'])('starts fast only for the exact value 1, not for "%s"', (value) =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect({
        lines: ['Upgrade: DERP', 'Connection: Upgrade', `Derp-Fast-Start: ${value}`],
      });
      await client.settle();
    }),
  );

  it('counts clients that say that this is not their ideal node', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.connect({ lines: ['Upgrade: DERP', 'Connection: Upgrade', 'Ideal-Node: 900a'] });
      await relay.untilCounter(['gauge_current_notideal_connections'], (value) => value === 1);
      client.destroy();
      await relay.untilCounter(['gauge_current_notideal_connections'], (value) => value === 0);
    }));

  it.each([
    ['no Upgrade header', []],
    ['another protocol', ['Upgrade: h2c', 'Connection: Upgrade']],
    ['another protocol before it', ['Upgrade: h2c', 'Upgrade: DERP', 'Connection: Upgrade']],
  ])('is refused with 426 for %s', (_, lines) =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.dial();
      await client.write(upgradeHead({ lines: [...lines, 'Connection: close'] }));
      const answer = (await client.readToEnd()).toString();
      expect(answer).toMatch(/^HTTP\/1\.1 426 /);
      expect(answer).toContain('DERP requires connection upgrade\n');
    }),
  );

  it('may follow other requests on the connection', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.dial();
      for (let n = 0; n < 3; n++) {
        await client.write(Buffer.from('GET /derp/probe HTTP/1.1\r\nHost: relay.test\r\n\r\n'));
        const head = await client.readHead();
        expect(head).toMatch(/^HTTP\/1\.1 200 /);
        expect(head.toLowerCase()).not.toContain('transfer-encoding');
      }
      await expectRelays(relay, await client.open());
    }));

  it.each([false, true])('and ClientInfo and packets may come in one write (fast start: %s)', (fastStart) =>
    withRelay({ shards }, async (relay) => {
      for (const peer of await relay.onePerShard()) {
        const client = await relay.dial();
        const info = frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey: relay.server.publicKey.bytes }));
        const packets = Array.from({ length: 20 }, (_, n) => sendPacketFrame(peer.publicKey, Buffer.of(n)));
        await client.write(Buffer.concat([upgradeHead({ fastStart }), info, ...packets]));
        if (!fastStart) await client.readHead();
        await client.readServerKey();
        await client.readServerInfo();
        for (let n = 0; n < packets.length; n++) {
          expect(await peer.expectPacket()).toEqual({ source: client.publicKey.hex, packet: Buffer.of(n) });
        }
        await client.settle();
      }
    }),
  );

  it.each([false, true])('may be split at any byte (fast start: %s)', (fastStart) =>
    withRelay({ shards }, async (relay) => {
      const head = upgradeHead({ fastStart });
      for (let cut = 1; cut < head.length; cut++) {
        const client = await relay.dial();
        await client.write(head.subarray(0, cut));
        // The other connection's whole handshake happens while this one waits for its second half.
        if (cut % 8 === 0) (await relay.connect()).destroy();
        await client.write(head.subarray(cut));
        if (!fastStart) await client.readHead();
        await client.handshake();
        client.destroy();
      }
    }),
  );

  it('takes head and ClientInfo byte by byte', () =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.dial();
      for (const byte of upgradeHead({ fastStart: true })) await client.write(Buffer.of(byte));
      const serverKey = await client.readServerKey();
      for (const byte of frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey }))) {
        await client.write(Buffer.of(byte));
      }
      await client.readServerInfo();
      await expectRelays(relay, client);
    }));

  it.each([
    ['null', 'null'],
    ['no member at all', '{}'],
    ['unknown members', '{"version":2,"CanAckPings":true,"Colour":{"a":[1,2,{}]}}'],
    ['names in any case', '{"VERSION":2,"canackpings":true,"isProber":true,"appname":"x"}'],
    ['the longest app name', JSON.stringify({ version: 2, AppName: 'n'.repeat(32) })],
    ['the longest text that fits', `{"x":"${'y'.repeat(256 * 1024 - 32 - 24 - 16 - 8)}"}`],
  ])('accepts a ClientInfo of %s', (_, json) =>
    withRelay({ shards }, async (relay) => {
      const client = await relay.dial();
      await client.write(upgradeHead({ fastStart: true }));
      const serverKey = await client.readServerKey();
      await client.write(frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey, json })));
      await client.readServerInfo();
      await expectRelays(relay, client);
    }),
  );

  it('is possible for 200 clients at once', () =>
    withRelay({ shards }, async (relay) => {
      const clients = await Promise.all(
        Array.from({ length: 200 }, (_, n) => relay.connect({ fastStart: n % 2 === 0 })),
      );
      await relay.untilCounter(['gauge_clients_local'], (value) => value === 200);
      await relay.untilCounter(['accepts'], (value) => value === 200);
      const ring = clients.map((client, n) => [client, clients[(n + 1) % clients.length] as RawClient] as const);
      for (const [from, to] of ring) await from.send(to.publicKey, from.publicKey.bytes);
      for (const [from, to] of ring) expect((await to.expectPacket()).source).toBe(from.publicKey.hex);
    }));
});

async function expectRelays(relay: TestRelay, client: RawClient): Promise<void> {
  const peer = await relay.connect();
  await client.send(peer.publicKey, Buffer.from('there'));
  expect(await peer.expectPacket()).toEqual({ source: client.publicKey.hex, packet: Buffer.from('there') });
  await peer.send(client.publicKey, Buffer.from('and back'));
  expect(await client.expectPacket()).toEqual({ source: peer.publicKey.hex, packet: Buffer.from('and back') });
}
