/** Bad WebSockets: each is told what is wrong and counted, and nobody else notices. */
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type RawClient, upgradeHead } from './support/raw_client.js';
import { patterned, sharedRelay, type TestRelay } from './support/relay.js';
import {
  closeOf,
  dialWebSocket,
  nextWireFrame,
  openWebSocket,
  WEBSOCKET_LINES,
  type WireFrame,
  webSocketUrl,
  wireFrame,
} from './support/web_socket.js';

const BINARY = 2;
const TEXT = 1;
const CONTINUATION = 0;
const PING = 9;

/** A WebSocket on which the test writes bytes. */
async function rawWebSocket(relay: TestRelay): Promise<RawClient> {
  const client = await relay.dial();
  await client.write(upgradeHead({ lines: WEBSOCKET_LINES }));
  await client.readHead();
  expect((await nextWireFrame(client)).opcode).toBe(BINARY);
  return client;
}

/** The code of the close frame, which must come next. */
async function closeCode(client: RawClient): Promise<number> {
  const { opcode, body } = await nextWireFrame(client);
  expect(opcode).toBe(8);
  return body.readUInt16BE();
}

/** Two clients that go on talking whatever the others do. */
async function expectUndisturbed(relay: TestRelay): Promise<void> {
  const [a, { client: b }] = [await relay.connect(), await openWebSocket(relay)];
  await a.send(b.publicKey, patterned(1_000));
  expect((await b.expectPacket()).packet).toEqual(patterned(1_000));
}

const without = (name: string) => WEBSOCKET_LINES.filter((line) => !line.startsWith(name));

const requests: [string, string[], string, string, { method?: string; version?: string }?][] = [
  ['HTTP/1.0', WEBSOCKET_LINES, '426', 'handshake request must be at least HTTP/1.1: "HTTP/1.0"', { version: '1.0' }],
  ['no Connection', without('Connection'), '426', 'Connection header "" does not contain Upgrade'],
  ['another method', WEBSOCKET_LINES, '405', 'handshake request method is not GET but "POST"', { method: 'POST' }],
  ['no version', without('Sec-WebSocket-Version'), '400', 'protocol version (only 13 is supported): ""'],
  ['no key', without('Sec-WebSocket-Key'), '400', 'missing Sec-WebSocket-Key'],
  ['two keys', [...WEBSOCKET_LINES, WEBSOCKET_LINES[2]!], '400', 'multiple Sec-WebSocket-Key headers'],
  [
    'a short key',
    [...without('Sec-WebSocket-Key'), 'Sec-WebSocket-Key: abc'],
    '400',
    'invalid Sec-WebSocket-Key "abc", must be a 16 byte base64 encoded string',
  ],
  ['a malformed Origin', [...WEBSOCKET_LINES, 'Origin: http://a:b'], '403', 'invalid port ":b" after host'],
];

const frames: [string, string, number, WireFrame[]][] = [
  ['a text message', 'text_message', 1003, [{ opcode: TEXT, body: Buffer.from('hello') }]],
  ['a reserved bit', 'protocol', 1002, [{ opcode: BINARY, reserved: 2 }]],
  ['the bit of a compression that was not agreed on', 'protocol', 1002, [{ opcode: BINARY, reserved: 4 }]],
  ['a reserved opcode', 'protocol', 1002, [{ opcode: 3 }]],
  ['an unmasked frame', 'protocol', 1002, [{ opcode: BINARY, masked: false, body: Buffer.of(1) }]],
  ['a ping in fragments', 'protocol', 1002, [{ opcode: PING, fin: false }]],
  ['a ping of 126 bytes', 'protocol', 1002, [{ opcode: PING, body: Buffer.alloc(126) }]],
  ['a close frame of one byte', 'protocol', 1002, [{ opcode: 8, body: Buffer.of(3) }]],
  ['a continuation of nothing', 'protocol', 1002, [{ opcode: CONTINUATION }]],
  ['a message larger than any frame', 'message_size', 1009, [{ opcode: BINARY, length: (1 << 18) + 6 }]],
  ['a message of 2^40 bytes', 'message_size', 1009, [{ opcode: BINARY, length: 2 ** 40 }]],
];

describe.each([false, true])('with TLS: %s', (tls) => {
  const relay = sharedRelay({ shards: 1, tls });

  it.each(requests)('a request with %s is refused', async (_, lines, status, text, options = {}) => {
    const before = relay().counter('websockets_failed', 'bad_upgrade');
    const client = await relay().dial();
    await client.write(upgradeHead({ lines, ...options }));
    const answer = (await client.readToEnd()).toString();
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer.endsWith(`${text}\n`)).toBe(true);
    expect(relay().counter('websockets_failed', 'bad_upgrade')).toBe(before + 1);
    await expectUndisturbed(relay());
  });

  it.each(['derpx', 'DERP, derp', 'chat, xderp'])('the subprotocol "%s" is closed with 1008', async (offers) => {
    const accepts = relay().counter('websocket_accepts');
    const client = await relay().dial();
    await client.write(
      upgradeHead({ lines: [...without('Sec-WebSocket-Protocol'), `Sec-WebSocket-Protocol: ${offers}`] }),
    );
    await client.readHead();
    const { opcode, body } = await nextWireFrame(client);
    expect([opcode, body.readUInt16BE(), body.subarray(2).toString()]).toEqual([
      8,
      1008,
      'client must speak the derp subprotocol',
    ]);
    expect(relay().counter('websocket_accepts')).toBe(accepts);
    await expectUndisturbed(relay());
  });

  it.each(frames)('%s is counted as %s and closes with %i', async (_, reason, code, sent) => {
    const before = relay().counter('websockets_failed', reason);
    const client = await rawWebSocket(relay());
    client.push(Buffer.concat(sent.map(wireFrame)));
    expect(await closeCode(client)).toBe(code);
    expect(relay().counter('websockets_failed', reason)).toBe(before + 1);
    await relay().untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
    await expectUndisturbed(relay());
  });

  it('fragments for ever end the connection', async () => {
    const client = await rawWebSocket(relay());
    const fragment = wireFrame({ opcode: CONTINUATION, fin: false, body: Buffer.of(0) });
    client.push(wireFrame({ opcode: BINARY, fin: false, body: Buffer.of(0) }));
    client.push(Buffer.concat(Array.from({ length: 2_000 }, () => fragment)));
    expect(await closeCode(client)).toBe(1008);
    await expectUndisturbed(relay());
  });

  it('a client in the middle of its life ends by its bad message, and its peers hear it', async () => {
    const { webSocket, client } = await openWebSocket(relay());
    const other = await relay().connect();
    await client.send(other.publicKey, patterned(5));
    await other.expectPacket();
    const closed = closeOf(webSocket);
    webSocket.send('text');
    expect((await closed).code).toBe(1003);
    expect((await other.expectPeerGone()).key).toBe(client.publicKey.hex);
  });

  it('a reset at any time harms nobody', async () => {
    for (let n = 0; n < 20; n++) {
      const client = await relay().dial();
      await client.write(upgradeHead({ lines: WEBSOCKET_LINES }));
      if (n % 2 === 0) await client.readHead();
      client.reset();
    }
    await relay().untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
    await expectUndisturbed(relay());
  });

  it('a client that never answers the close frame is let go', async () => {
    const client = await rawWebSocket(relay());
    client.push(wireFrame({ opcode: TEXT }));
    expect(await closeCode(client)).toBe(1003);
    await client.expectClose();
  });
});

describe('the WebSocket library', () => {
  const relay = sharedRelay({ shards: 1 });

  it('finds no compression, whatever it offers', async () => {
    const webSocket = new WebSocket(webSocketUrl(relay()), 'derp', {
      rejectUnauthorized: false,
      perMessageDeflate: true,
    });
    await once(webSocket, 'open');
    expect(webSocket.extensions).toBe('');
    expect(webSocket.protocol).toBe('derp');
    webSocket.terminate();
    await dialWebSocket(relay());
  });
});
