/** Calls of clients that a signal ends, and what they leave behind: nothing. */
import { getEventListeners } from 'node:events';
import { connect } from 'node:net';
import { Client, DerpError, PrivateKey, RelayClient } from 'derplane';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FrameType, frameOf } from '../dist/protocol/frame.js';
import { FakeRelay } from './support/fake_relay.js';

const reason = new Error('the user left');
const listeners = (signal: AbortSignal) => getEventListeners(signal, 'abort').length;

/** What every call ends with that a signal ended. */
async function expectAborted(call: Promise<unknown>): Promise<void> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(DerpError);
  expect(error).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: reason });
}

let relay: FakeRelay;
let client: RelayClient;
let controller: AbortController;

beforeEach(async () => {
  relay = await FakeRelay.start();
  client = new RelayClient(PrivateKey.generate(), relay.url);
  controller = new AbortController();
});
afterEach(async () => {
  client.close();
  await relay.close();
});

async function connected() {
  const [connection] = await Promise.all([relay.client(), client.connect()]);
  return connection;
}

const packet = (text: string) =>
  frameOf(FrameType.RECV_PACKET, PrivateKey.generate().publicKey.bytes, Buffer.from(text));

describe('a signal', () => {
  it('that was aborted before ends every call at once', async () => {
    const signal = AbortSignal.abort(reason);
    for (const call of [
      client.connect({ signal }),
      client.recv({ signal }),
      client.ping({ signal }),
      client.packets({ signal }).next(),
    ]) {
      await expectAborted(call);
    }
    expect(client.generation).toBe(0);
    expect(listeners(signal)).toBe(0);
  });

  it('ends connect, and the attempt with it', async () => {
    const { signal } = controller;
    const connecting = client.connect({ signal });
    const connection = await relay.connection();
    controller.abort(reason);
    await expectAborted(connecting);
    await connection.ended();
    expect(listeners(signal)).toBe(0);
    expect(client.generation).toBe(0);
  });

  it('ends one of two calls that wait for an attempt, which goes on', async () => {
    const patient = client.connect();
    const connecting = client.connect({ signal: controller.signal });
    const connection = await relay.connection();
    controller.abort(reason);
    await expectAborted(connecting);
    await connection.readHead();
    connection.switchProtocols();
    await connection.letIn();
    await patient;
    expect(client.generation).toBe(1);
  });

  it('ends connect, after which the client can connect', async () => {
    const connecting = client.connect({ signal: controller.signal });
    await relay.connection();
    controller.abort(reason);
    await expectAborted(connecting);
    await connected();
    expect(client.generation).toBe(1);
  });

  it('ends recv, and no message is lost', async () => {
    const connection = await connected();
    while ((await client.recv()).type !== 'serverInfo');
    const receiving = client.recv({ signal: controller.signal });
    const second = client.recv();
    await expect(second).rejects.toMatchObject({ code: 'ERR_DERP_BUSY' });
    controller.abort(reason);
    await expectAborted(receiving);
    expect(listeners(controller.signal)).toBe(0);
    connection.write(packet('kept'));
    expect(await client.recv()).toMatchObject({ type: 'packet', data: Buffer.from('kept') });
  });

  it('that is not aborted is not listened to any more once the call ended', async () => {
    const connection = await connected();
    const { signal } = controller;
    connection.write(packet('one'));
    for await (const { data } of client.packets({ signal })) {
      expect(data.toString()).toBe('one');
      break;
    }
    expect(listeners(signal)).toBe(0);
  });

  it('ends ping', async () => {
    await connected();
    const pinging = client.ping({ signal: controller.signal });
    controller.abort(reason);
    await expectAborted(pinging);
    expect(listeners(controller.signal)).toBe(0);
  });

  it('ends the handshake of a connection, and the connection', async () => {
    const socket = connect(relay.port, '127.0.0.1');
    const connecting = Client.connect(PrivateKey.generate(), socket, { signal: controller.signal });
    const connection = await relay.connection();
    controller.abort(reason);
    await expectAborted(connecting);
    await connection.ended();
    expect(listeners(controller.signal)).toBe(0);
  });
});

describe('a client', () => {
  it('ends with its scope', async () => {
    {
      await using scoped = client;
      await scoped[Symbol.asyncDispose]();
    }
    await expect(client.recv()).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
  });

  it('iterates packets, and drops messages of other kinds', async () => {
    const connection = await connected();
    connection.write(frameOf(FrameType.KEEP_ALIVE));
    connection.write(packet('one'));
    connection.write(frameOf(FrameType.HEALTH, Buffer.from('sick')));
    connection.write(packet('two'));
    const texts: string[] = [];
    for await (const { data } of client.packets()) {
      if (texts.push(data.toString()) === 2) client.close();
    }
    expect(texts).toEqual(['one', 'two']);
  });
});
