/** What a client does when its relay announces that it restarts. */
import { PrivateKey, RelayClient } from 'derplane';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AnnouncedRestart } from '../dist/client/restart.js';
import { FrameType, frameOf } from '../dist/protocol/frame.js';
import { type FakeConnection, FakeRelay } from './support/fake_relay.js';

let relay: FakeRelay;
let client: RelayClient;
let first: FakeConnection;

beforeEach(async () => {
  relay = await FakeRelay.start();
  client = new RelayClient(PrivateKey.generate(), relay.url);
  [, first] = await Promise.all([client.connect(), relay.client()]);
  expect(await client.recv()).toMatchObject({ type: 'serverInfo' });
});

afterEach(async () => {
  client.close();
  await relay.close();
});

function restarting(reconnectIn: number, tryFor: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt32BE(reconnectIn);
  body.writeUInt32BE(tryFor, 4);
  return frameOf(FrameType.RESTARTING, body);
}

describe('an announced restart', () => {
  it('is told, and the loss that follows is not: recv goes on over the next connection', async () => {
    first.socket.end(restarting(0, 10_000));
    expect(await client.recvDetail()).toEqual({
      generation: 1,
      message: { type: 'restarting', reconnectIn: 0, tryFor: 10_000 },
    });
    const [next] = await Promise.all([client.recvDetail(), relay.client()]);
    expect(next).toMatchObject({ generation: 2, message: { type: 'serverInfo' } });
  });

  it('holds packets back until the client is back', async () => {
    first.socket.end(restarting(20, 10_000));
    await client.recv();
    const receiving = client.recv();
    const second = await relay.client();
    expect(await receiving).toMatchObject({ type: 'serverInfo' });
    await client.send(client.publicKey, Buffer.from('after'));
    expect((await second.nextFrame()).body.subarray(32).toString()).toBe('after');
  });

  it('makes the client wait as long as the relay asked', async () => {
    const before = performance.now();
    first.socket.end(restarting(200, 10_000));
    await client.recv();
    const receiving = client.recv();
    await relay.connection().then((connection) => connection.socket.destroy());
    expect(performance.now() - before).toBeGreaterThan(190);
    await Promise.all([receiving, relay.client()]);
  });

  it('lets the client try again while the relay is not back yet', async () => {
    first.socket.end(restarting(0, 10_000));
    await client.recv();
    const receiving = client.recv();
    for (let attempt = 0; attempt < 2; attempt++) (await relay.connection()).socket.destroy();
    await Promise.all([receiving, relay.client()]);
    expect(client.generation).toBe(2);
  });

  it('is not waited for for ever', async () => {
    first.socket.end(restarting(0, 100));
    await client.recv();
    const receiving = client.recv();
    (await relay.connection()).socket.destroy();
    await expect(receiving).rejects.toMatchObject({ code: 'ERR_DERP_CONNECT' });
  });

  it('does not outlast close', async () => {
    first.socket.end(restarting(60_000, 60_000));
    await client.recv();
    await first.ended();
    const waiting = [client.recv(), client.send(client.publicKey, Buffer.alloc(1))];
    client.close();
    for (const { status } of await Promise.allSettled(waiting)) expect(status).toBe('rejected');
    await expect(waiting[0]).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
  });

  it('does not hide a loss long after it', async () => {
    first.write(restarting(0, 0));
    await client.recv();
    const receiving = client.recv();
    first.socket.destroy();
    await expect(receiving).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
  });

  it('may not ask for more than a minute', async () => {
    const message = { type: 'restarting', reconnectIn: 2 ** 32 - 1, tryFor: 2 ** 32 - 1 } as const;
    const controller = new AbortController();
    const restart = new AnnouncedRestart(message, 1);
    expect(restart.isCurrent).toBe(true);
    controller.abort(new Error('enough'));
    await expect(restart.reconnect(() => Promise.resolve(1), controller.signal)).rejects.toThrow('enough');
  });
});
