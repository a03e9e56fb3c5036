/** WebSocket clients for tests: a whole one, and frames byte by byte. */
import { once } from 'node:events';
import { createWebSocketStream, WebSocket } from 'ws';
import type { PrivateKey } from '../../dist/protocol/key.js';
import { RawClient } from './raw_client.js';
import type { TestRelay } from './relay.js';

/** Of no meaning: the value of `Sec-WebSocket-Key`. */
export const WEBSOCKET_KEY = Buffer.alloc(16, 7).toString('base64');

/** Header lines of a good upgrade. */
export const WEBSOCKET_LINES = [
  'Upgrade: websocket',
  'Connection: Upgrade',
  `Sec-WebSocket-Key: ${WEBSOCKET_KEY}`,
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Protocol: derp',
];

export interface WebSocketClient {
  webSocket: WebSocket;
  /** DERP over it: each write is a message. */
  client: RawClient;
}

export function webSocketUrl(relay: TestRelay): string {
  return relay.url.replace(/^http/, 'ws');
}

/** A WebSocket on which nothing was sent yet. */
export async function dialWebSocket(relay: TestRelay, key?: PrivateKey): Promise<WebSocketClient> {
  const webSocket = new WebSocket(webSocketUrl(relay), 'derp', { rejectUnauthorized: false });
  const stream = createWebSocketStream(webSocket);
  // Tests that look at how a WebSocket closes have listeners of their own.
  webSocket.on('error', () => undefined);
  const client = relay.track(new RawClient(stream, key));
  await once(webSocket, 'open');
  return { webSocket, client };
}

/** A client past its handshake. */
export async function openWebSocket(relay: TestRelay, key?: PrivateKey): Promise<WebSocketClient> {
  const dialled = await dialWebSocket(relay, key);
  await dialled.client.handshake();
  return dialled;
}

/** The code and reason that a WebSocket closes with. */
export async function closeOf(webSocket: WebSocket): Promise<{ code: number; reason: string }> {
  const [code, reason] = (await once(webSocket, 'close')) as [number, Buffer];
  return { code, reason: reason.toString() };
}

export interface WireFrame {
  opcode: number;
  body?: Uint8Array;
  /** Default: true. */
  fin?: boolean;
  /** Reserved bits, 0 to 7. Default: 0. */
  reserved?: number;
  /** Default: true. */
  masked?: boolean;
  /** What the length field says; default: the truth. */
  length?: number;
}

/** One frame as a client sends it, right or wrong. The mask is all zero, so bodies stay readable. */
export function wireFrame({ opcode, body = Buffer.alloc(0), fin = true, reserved = 0, ...rest }: WireFrame): Buffer {
  const { masked = true, length = body.length } = rest;
  const first = (fin ? 0x80 : 0) | (reserved << 4) | opcode;
  const mask = masked ? 0x80 : 0;
  let head: Buffer;
  if (length < 126) {
    head = Buffer.of(first, mask | length);
  } else if (length < 0x10000) {
    head = Buffer.of(first, mask | 126, length >> 8, length & 0xff);
  } else {
    head = Buffer.alloc(10);
    head.set([first, mask | 127]);
    head.writeBigUInt64BE(BigInt(length), 2);
  }
  return Buffer.concat([head, Buffer.alloc(masked ? 4 : 0), body]);
}

/** The next frame of a relay: never masked, never a fragment. */
export async function nextWireFrame(client: RawClient): Promise<{ opcode: number; body: Buffer }> {
  const [first, short] = (await client.nextBytes(2)) as unknown as [number, number];
  if ((first & 0xf0) !== 0x80 || short > 127) throw new Error(`frame begins with ${first.toString(16)} ${short}`);
  let length = short;
  if (short === 126) length = (await client.nextBytes(2)).readUInt16BE();
  if (short === 127) length = Number((await client.nextBytes(8)).readBigUInt64BE());
  return { opcode: first & 0xf, body: length === 0 ? Buffer.alloc(0) : await client.nextBytes(length) };
}
