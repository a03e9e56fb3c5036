/** What a relay tells its listeners, and handles of mesh peers. */
import { once } from 'node:events';
import { type MeshPeer, PrivateKey, RelayClient, Server } from 'derplane';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LogWatch } from './support/log_watch.js';

const MESH_KEY = 'e7'.repeat(32);
const ends: (() => Promise<void> | void)[] = [];

beforeEach(() => {
  ends.length = 0;
});
afterEach(async () => {
  for (const end of ends.reverse()) await end();
});

async function start(options: { logger?: LogWatch; shards?: number } = {}) {
  const server = new Server(PrivateKey.generate(), {
    shards: 2,
    handshake: { threads: 1 },
    mesh: { key: MESH_KEY, retryInterval: 20 },
    ...options,
  });
  ends.push(() => server.close());
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
  return { server, port, host: `http://127.0.0.1:${port}` };
}

async function connect(host: string, options: { meshKey?: string; isProber?: boolean; idealNode?: string } = {}) {
  const client = new RelayClient(PrivateKey.generate(), host, options);
  ends.push(() => client.close());
  await client.connect();
  return client;
}

describe('a client', () => {
  it('that comes and goes is told, with who it is and why it went', async () => {
    const { server, host } = await start();
    const connected = once(server, 'clientConnected');
    const gone = once(server, 'clientGone');
    const client = await connect(host, { meshKey: MESH_KEY, isProber: true, idealNode: 'derp2' });
    const [who] = await connected;
    expect(who).toMatchObject({ isMeshPeer: true, isProber: true, isNotIdeal: true });
    expect(who.key.equals(client.publicKey)).toBe(true);
    expect(who.address).toMatch(/^127\.0\.0\.1:\d+$/);
    client.close();
    const [left] = await gone;
    expect(left).toMatchObject({ id: who.id, address: who.address, reason: expect.stringMatching(/^(eof|reset)$/) });
    expect(left.key.equals(client.publicKey)).toBe(true);
    expect(left.text).not.toBe('');
  });

  it('is told to nobody who stopped listening', async () => {
    const { server, host } = await start();
    const seen: string[] = [];
    const listener = ({ key }: { key: { hex: string } }) => seen.push(key.hex);
    server.on('clientConnected', listener);
    const first = await connect(host);
    server.off('clientConnected', listener);
    await connect(host);
    const again = once(server, 'clientConnected');
    const third = await connect(host);
    expect((await again)[0].key.equals(third.publicKey)).toBe(true);
    expect(seen).toEqual([first.publicKey.hex]);
  });

  it('is told again to who listens after all listeners were removed', async () => {
    const { server, host } = await start();
    server.on('clientConnected', () => {});
    server.removeAllListeners();
    const connected = once(server, 'clientConnected');
    const client = await connect(host);
    expect((await connected)[0].key.equals(client.publicKey)).toBe(true);
  });

  it('is told to the other listeners when one throws, which the log says', async () => {
    const logger = new LogWatch();
    const { server, host } = await start({ logger });
    server.on('clientConnected', () => {
      throw new Error('on purpose');
    });
    const connected = once(server, 'clientConnected');
    await connect(host);
    await connected;
    await logger.line(/a listener of clientConnected threw: Error: on purpose/);
  });
});

describe('a relay that drains', () => {
  it('tells when its clients are gone', async () => {
    const { server, host } = await start();
    const client = await connect(host);
    const order: string[] = [];
    server.on('clientGone', () => order.push('gone'));
    server.on('drained', () => order.push('drained'));
    const receiving = (async () => {
      for await (const message of client) if (message.type === 'restarting') order.push('restarting');
    })().catch(() => {});
    await server.close({ drainTime: 300 });
    client.close();
    await receiving;
    expect(order).toContain('restarting');
    expect(order).toContain('drained');
  });
});

describe('a mesh peer', () => {
  async function region() {
    const [here, there] = [await start(), await start()];
    return { here, there };
  }

  it('is ready when its keys are known, and its clients are reached', async () => {
    const { here, there } = await region();
    const bob = await connect(there.host);
    const up = once(here.server, 'meshLinkUp');
    const peer = here.server.addMeshPeer(`${there.host}/derp`);
    expect(peer).toMatchObject({ host: `127.0.0.1:${there.port}`, isUp: false });
    await peer.ready;
    expect(peer.isUp).toBe(true);
    expect((await up)[0]).toMatchObject({ host: peer.host });
    const alice = await connect(here.host);
    await alice.send(bob.publicKey, Buffer.from('over the link'));
    for await (const { data } of bob.packets()) {
      expect(data.toString()).toBe('over the link');
      break;
    }
  });

  it('that is closed takes its keys with it', async () => {
    const { here, there } = await region();
    await connect(there.host);
    const peer = here.server.addMeshPeer(there.host);
    await peer.ready;
    const down = once(here.server, 'meshLinkDown');
    const gone = once(there.server, 'clientGone');
    await peer.close();
    await peer.close();
    expect((await down)[0]).toMatchObject({ host: peer.host });
    expect((await gone)[0].key.equals(here.server.publicKey)).toBe(true);
    expect(peer.isUp).toBe(false);
    await here.server.consistencyCheck();
    expect(here.server.expVar().gauge_clients_remote).toBe(0);
  });

  it('comes back by itself, and both changes are told', async () => {
    const { here, there } = await region();
    const peer = here.server.addMeshPeer(there.host);
    await peer.ready;
    const down = once(here.server, 'meshLinkDown');
    await there.server.close();
    expect((await down)[0]).toMatchObject({ host: peer.host, reason: expect.any(String) });
    expect(peer.isUp).toBe(false);
    const up = once(here.server, 'meshLinkUp');
    const again = new Server(PrivateKey.generate(), { shards: 1, handshake: { threads: 1 }, mesh: { key: MESH_KEY } });
    ends.push(() => again.close());
    await again.listen({ host: '127.0.0.1', port: there.port });
    await up;
    expect(peer.isUp).toBe(true);
  });

  it.each([
    ['is closed before', 'ERR_DERP_CLOSED', async (peer: MeshPeer) => peer.close()],
    ['belongs to a relay that is closed', 'ERR_DERP_CLOSED', async (_peer: MeshPeer, server: Server) => server.close()],
  ])('that %s is never ready', async (_when, code, act) => {
    const { server } = await start();
    const peer = server.addMeshPeer('http://127.0.0.1:1');
    await act(peer, server);
    await expect(peer.ready).rejects.toMatchObject({ code });
  });

  it('that is the relay itself is never ready', async () => {
    const { server, host } = await start();
    await expect(server.addMeshPeer(host).ready).rejects.toMatchObject({ code: 'ERR_DERP_SELF_CONNECT' });
  });

  it('ends with its scope, and so does the relay', async () => {
    const { here, there } = await region();
    const gone = once(there.server, 'clientGone');
    {
      await using peer = here.server.addMeshPeer(there.host);
      await peer.ready;
    }
    await gone;
    let closed: Promise<void>;
    {
      await using scoped = new Server(PrivateKey.generate(), { shards: 1, handshake: { threads: 1 } });
      await using listener = await scoped.listen({ host: '127.0.0.1', port: 0 });
      expect(listener.port).toBeGreaterThan(0);
      ({ closed } = scoped);
    }
    await closed;
  });
});
