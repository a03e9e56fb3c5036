/** How a relay lets its clients go. */

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server as HttpServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrivateKey, RelayClient, Server } from 'derplane';
import { describe, expect, it } from 'vitest';
import { startDerplane } from './support/derplane.js';
import { RawClient } from './support/raw_client.js';
import { SHARD_COUNTS } from './support/relay.js';

const RESTARTING = 0x15;

async function start(shards: number): Promise<{ server: Server; port: number }> {
  const server = new Server(PrivateKey.generate(), {
    shards,
    handshake: { threads: 1 },
    mesh: { key: 'dd'.repeat(32) },
  });
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
  return { server, port };
}

const connect = async (port: number, meshKey?: string) =>
  (await RawClient.dial(port)).open(meshKey === undefined ? {} : { meshKey });

describe.each(SHARD_COUNTS)('a relay with %i shard(s) that drains', (shards) => {
  it('tells every client, mesh peers too, then closes one after the other', async () => {
    const { server, port } = await start(shards);
    const clients = await Promise.all(
      Array.from({ length: 40 }, (_, i) => connect(port, i % 2 ? 'dd'.repeat(32) : undefined)),
    );
    const time = 1_500;
    const before = performance.now();
    const closing = server.close({ drainTime: time });
    const ends = await Promise.all(
      clients.map(async (client) => {
        const body = await client.expectFrame(RESTARTING);
        expect([body.length, body.readUInt32BE(0)]).toEqual([8, time]);
        expect(body.readUInt32BE(4)).toBeGreaterThan(0);
        await client.expectClose();
        return performance.now() - before;
      }),
    );
    await closing;
    // Not all at once; how evenly is not this test's to measure, which shares its cores.
    expect(Math.max(...ends) - Math.min(...ends)).toBeGreaterThan(time / 5);
  });

  it('takes nobody new, and does not wait when nobody is left', async () => {
    const { server, port } = await start(shards);
    const client = await connect(port);
    const closing = server.close({ drainTime: 60_000 });
    await client.expectFrame(RESTARTING);
    await expect(RawClient.dial(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    client.destroy();
    await closing;
  });

  it('goes on relaying meanwhile', async () => {
    const { server, port } = await start(shards);
    const [a, b] = [await connect(port), await connect(port)];
    const closing = server.close({ drainTime: 60_000 });
    await Promise.all([a.expectFrame(RESTARTING), b.expectFrame(RESTARTING)]);
    await a.send(b.publicKey, Buffer.from('still'));
    expect((await b.expectPacket()).packet.toString()).toBe('still');
    // A close that is in no mood to wait ends the drain.
    await Promise.all([server.close(), closing]);
    await Promise.all([a.expectClose(), b.expectClose()]);
  });

  it('ends what never reads when the time is over', async () => {
    const { server, port } = await start(shards);
    const frozen = await connect(port);
    frozen.freeze();
    await server.close({ drainTime: 100 });
    frozen.destroy();
  });
});

it('a relay without clients closes at once', async () => {
  const { server } = await start(1);
  await server.close({ drainTime: 3_600_000 });
});

it.each([-1, 1.5, Number.NaN])('a drain time of %d is refused, and the relay goes on', async (drainTime) => {
  const { server, port } = await start(1);
  await expect(server.close({ drainTime })).rejects.toMatchObject({ code: 'ERR_DERP_BAD_OPTION' });
  await (await connect(port)).settle();
  await server.close();
});

it("leaves an embedder's own server alone", async () => {
  const { server } = await start(1);
  const http: HttpServer = createServer((_request, response) => response.end('mine'));
  server.attach(http);
  await once(http.listen(0, '127.0.0.1'), 'listening');
  const { port } = http.address() as { port: number };
  const client = await connect(port);
  const closing = server.close({ drainTime: 60_000 });
  await client.expectFrame(RESTARTING);
  expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('mine');
  client.destroy();
  await closing;
  http.close();
  http.closeAllConnections();
});

it('clients of this library come back to the relay that follows, having lost nothing but time', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'derplane-drain-'));
  const args = (address: string) => [
    '-a',
    address,
    '-c',
    join(folder, 'key'),
    '-shards=1',
    '-stun=false',
    '-drain-time=300ms',
  ];
  const first = await startDerplane(args('127.0.0.1:0'));
  const client = new RelayClient(PrivateKey.generate(), `http://${first.address}/derp`);
  await client.connect();
  const seen: string[] = [];
  const reading = (async () => {
    for await (const { type } of client) {
      seen.push(type);
      if (type === 'packet') return;
    }
  })();
  first.kill('SIGTERM');
  expect(await first.ended).toMatchObject({ code: 0, signal: null });
  const second = await startDerplane(args(first.address));
  await client.send(client.publicKey, Buffer.from('back'));
  await reading;
  expect(seen).toEqual(['serverInfo', 'restarting', 'serverInfo', 'packet']);
  client.close();
  second.kill('SIGTERM');
  expect(await second.ended).toMatchObject({ code: 0 });
  await rm(folder, { recursive: true });
});

it('-drain-time is kept to, and a second signal ends it at once', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'derplane-drain-'));
  const relay = await startDerplane([
    '-a=127.0.0.1:0',
    '-c',
    join(folder, 'key'),
    '-shards=1',
    '-stun=false',
    '-drain-time=1h',
  ]);
  const client = await connect(relay.port);
  relay.kill('SIGTERM');
  await client.expectFrame(RESTARTING);
  await client.settle();
  relay.kill('SIGTERM');
  expect(await relay.ended).toMatchObject({ code: 143 });
  client.destroy();
  await rm(folder, { recursive: true });
});
