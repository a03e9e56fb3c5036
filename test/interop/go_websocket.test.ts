/** Requests that cannot become a WebSocket are answered as derper answers them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GO_DERPER_TIMEOUT, type GoDerper, newestDerperMissing, startGoDerper } from '../support/go_derper.js';
import { RawClient, upgradeHead } from '../support/raw_client.js';
import { sharedRelay } from '../support/relay.js';
import { WEBSOCKET_LINES } from '../support/web_socket.js';

const without = (name: string) => WEBSOCKET_LINES.filter((line) => !line.startsWith(name));

const requests: [string, string[], { method?: string }?][] = [
  ['no Connection', without('Connection')],
  ['Connection: keep-alive', [...without('Connection'), 'Connection: keep-alive']],
  ['another method', WEBSOCKET_LINES, { method: 'POST' }],
  ['no version', without('Sec-WebSocket-Version')],
  ['version 8', [...without('Sec-WebSocket-Version'), 'Sec-WebSocket-Version: 8']],
  ['no key', without('Sec-WebSocket-Key')],
  ['two keys', [...WEBSOCKET_LINES, WEBSOCKET_LINES[2]!]],
  ['a short key', [...without('Sec-WebSocket-Key'), 'Sec-WebSocket-Key: abc']],
  ['a key of 17 bytes', [...without('Sec-WebSocket-Key'), `Sec-WebSocket-Key: ${Buffer.alloc(17).toString('base64')}`]],
  ['an Origin without a scheme', [...WEBSOCKET_LINES, 'Origin: :x']],
  ['an Origin with a bad port', [...WEBSOCKET_LINES, 'Origin: http://a:b']],
  ['several faults', ['Upgrade: websocket', 'Sec-WebSocket-Protocol: derp', 'Origin: :x'], { method: 'PUT' }],
];

/** What clients and tools look at. */
async function answerOf(port: number, lines: string[], options: { method?: string } = {}) {
  const client = await RawClient.dial(port);
  await client.write(upgradeHead({ lines, ...options }));
  const head = await client.readHead();
  const header = (name: string) => new RegExp(`^${name}: (.*)$`, 'im').exec(head)?.[1];
  const body = await client.nextBytes(Number(header('Content-Length')));
  client.destroy();
  return {
    status: head.split('\r\n', 1)[0],
    type: header('Content-Type'),
    sniff: header('X-Content-Type-Options'),
    version: header('Sec-WebSocket-Version'),
    upgrade: header('Upgrade'),
    body: body.toString(),
  };
}

describe.skipIf(newestDerperMissing() !== undefined)('derper and derplane', () => {
  const relay = sharedRelay({ shards: 1, tls: false });
  let derper: GoDerper;
  beforeAll(async () => {
    derper = await startGoDerper({ newest: true });
  }, GO_DERPER_TIMEOUT);
  afterAll(() => derper?.close());

  it.each(requests)('answer a request with %s alike', async (_, lines, options) => {
    expect(await answerOf(relay().port, lines, options)).toEqual(await answerOf(derper.port, lines, options));
  });
});
