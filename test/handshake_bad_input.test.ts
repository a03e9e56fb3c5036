/** What strangers send instead of a handshake: their connection ends, and nothing else happens. */
import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PrivateKey } from '../dist/protocol/key.js';
import { clientInfoBody, Frame, frame, type RawClient, upgradeHead } from './support/raw_client.js';
import { patterned, SHARD_COUNTS, sharedRelay, type TestRelay, withRelay } from './support/relay.js';

const MAX_CLIENT_INFO = 256 * 1024;

describe.each(SHARD_COUNTS)('a relay with %i shard(s) ends a connection', (shards) => {
  const relay = sharedRelay({ shards });

  it.each([
    ['random bytes', randomBytes(512)],
    ['a TLS greeting', Buffer.from('16030100c8010000c40303', 'hex')],
    ['an SSH greeting', Buffer.from('SSH-2.0-OpenSSH_9.6\r\n')],
    ['a DERP frame without an upgrade', frame(Frame.ping, patterned(8))],
    ['zeros', Buffer.alloc(4096)],
    ['a request line without a version', Buffer.from('GET /derp\r\nUpgrade: DERP\r\n\r\n')],
    ['HTTP/2', Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')],
    ['no request line', Buffer.from('\r\n\r\n\r\n:\r\n\r\n')],
    ['a header without a colon', Buffer.from('GET /derp HTTP/1.1\r\nUpgrade DERP\r\n\r\n')],
    ['a zero byte in a header', Buffer.from('GET /derp HTTP/1.1\r\nUpgrade: DE\0RP\r\n\r\n')],
  ])('that sends %s instead of a request head', async (_, bytes) => {
    await expectOnlyItEnds(relay(), 'malformed_request', async (client) => client.push(bytes));
  });

  it('whose request head is over 8 KiB', async () => {
    const head = upgradeHead({ lines: ['Upgrade: DERP', `X-Padding: ${'x'.repeat(9_000)}`] });
    await expectOnlyItEnds(relay(), 'malformed_request', async (client) => client.push(head));
  });

  it('whose request head never ends, without keeping it', async () => {
    await expectOnlyItEnds(relay(), 'malformed_request', async (client) => {
      client.push(Buffer.from('GET /derp HTTP/1.1\r\n'));
      client.push(Buffer.alloc(4 * 1024 * 1024, 'x'));
    });
  });

  it.each([
    ['an empty ClientInfo', 'bad_client_info', frame(Frame.clientInfo)],
    ['a ClientInfo of 55 bytes', 'bad_client_info', frame(Frame.clientInfo, patterned(55))],
    ['a ClientInfo of 56 bytes without a box', 'bad_box', frame(Frame.clientInfo, patterned(56))],
    ['a ClientInfo with 15 bytes of box', 'bad_box', frame(Frame.clientInfo, patterned(71))],
    ['a ClientInfo with one byte too many', 'bad_client_info', frame(Frame.clientInfo, patterned(MAX_CLIENT_INFO + 1))],
    ['a ClientInfo that claims 4 GiB', 'bad_client_info', frame(Frame.clientInfo, Buffer.alloc(0), 0xffff_ffff)],
    ['a ClientInfo whose box is noise', 'bad_box', frame(Frame.clientInfo, randomBytes(200))],
    ['SendPacket first', 'bad_first_frame', frame(Frame.sendPacket, patterned(40))],
    ['Ping first', 'bad_first_frame', frame(Frame.ping, patterned(8))],
    ['an unknown frame first', 'bad_first_frame', frame(0x7f, patterned(100))],
    ['ServerKey back', 'bad_first_frame', frame(Frame.serverKey, patterned(40))],
  ])('that sends %s (%s)', async (_, failure, bytes) => {
    await expectOnlyItEnds(relay(), failure, async (client) => {
      await upgraded(client);
      client.push(bytes);
    });
  });

  it('whose box was made for another relay', async () => {
    const other = PrivateKey.generate().publicKey.bytes;
    await expectOnlyItEnds(relay(), 'bad_box', (client) =>
      sendClientInfo(client, clientInfoBody(client.key, { serverKey: other })),
    );
  });

  it('whose box was made by another key', async () => {
    await expectOnlyItEnds(relay(), 'bad_box', async (client) => {
      const serverKey = await upgraded(client);
      const body = clientInfoBody(client.key, { serverKey });
      body.set(PrivateKey.generate().publicKey.bytes);
      client.push(frame(Frame.clientInfo, body));
    });
  });

  it('whose box was changed by one bit, anywhere', async () => {
    const { bytes: serverKey } = relay().server.publicKey;
    for (const at of [0, 31, 32, 55, 56, 71, 72, -1]) {
      const body = clientInfoBody(PrivateKey.generate(), { serverKey });
      const index = at < 0 ? body.length + at : at;
      body[index] = (body[index] as number) ^ 1;
      await expectOnlyItEnds(relay(), 'bad_box', (client) => sendClientInfo(client, body));
    }
  });

  it.each([
    ['all-zero', 'bad_client_info', Buffer.alloc(32)],
    ['of low order', 'bad_box', Buffer.concat([Buffer.of(1), Buffer.alloc(31)])],
  ])('whose key is %s (%s)', async (_, failure, key) => {
    const { bytes: serverKey } = relay().server.publicKey;
    const body = clientInfoBody(PrivateKey.generate(), { serverKey });
    body.set(key);
    await expectOnlyItEnds(relay(), failure, (client) => sendClientInfo(client, body));
  });

  it.each([
    ['nothing', ''],
    ['no JSON', 'hello'],
    ['half of it', '{"version":2'],
    ['text behind it', '{"version":2}x'],
    ['an array', '[]'],
    ['a number', '2'],
    ['a version that is text', '{"version":"2"}'],
    ['a version with a fraction', '{"version":2.5}'],
    ['CanAckPings that is a number', '{"CanAckPings":1}'],
    ['an app name that is a number', '{"AppName":1}'],
    ['a mesh key of 63 digits', JSON.stringify({ meshKey: 'a'.repeat(63) })],
    ['a mesh key of other letters', JSON.stringify({ meshKey: 'g'.repeat(64) })],
    ['an empty mesh key', '{"meshKey":""}'],
    ['a mesh key of null', '{"meshKey":null}'],
    ['a mesh key that is a number', '{"meshKey":1}'],
    ['10,000 levels', `${'{"a":'.repeat(10_001)}1${'}'.repeat(10_001)}`],
  ])('whose ClientInfo holds %s', async (_, json) => {
    const { bytes: serverKey } = relay().server.publicKey;
    await expectOnlyItEnds(relay(), 'bad_client_info', (client) =>
      sendClientInfo(client, clientInfoBody(client.key, { serverKey, json })),
    );
  });

  it('that says nothing for the request timeout', () =>
    withRelay({ shards, handshake: { requestTimeout: 200 } }, (relay) =>
      expectOnlyItEnds(relay, relay.tls ? 'timeout' : 'silent', async () => undefined),
    ));

  it('whose request head drips in for longer than the request timeout', () =>
    withRelay({ shards, handshake: { requestTimeout: 300 } }, (relay) =>
      expectOnlyItEnds(relay, 'timeout', async (client) => drip(client, upgradeHead())),
    ));

  it('that says nothing for the ClientInfo timeout', () =>
    withRelay({ shards, handshake: { clientInfoTimeout: 200 } }, (relay) =>
      expectOnlyItEnds(relay, 'timeout', upgraded),
    ));

  it('whose ClientInfo drips in for longer than the ClientInfo timeout', () =>
    withRelay({ shards, handshake: { clientInfoTimeout: 300 } }, (relay) =>
      expectOnlyItEnds(relay, 'timeout', async (client) => {
        const serverKey = await upgraded(client);
        drip(client, frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey })));
      }),
    ));
});

/** Upgrades with fast start up to ServerKey. */
async function upgraded(client: RawClient): Promise<Buffer> {
  await client.write(upgradeHead({ fastStart: true }));
  return client.readServerKey();
}

async function sendClientInfo(client: RawClient, body: Buffer): Promise<void> {
  await upgraded(client);
  client.push(frame(Frame.clientInfo, body));
}

/** Writes a byte every 20 ms until there are none left or the connection ended. */
function drip(client: RawClient, bytes: Buffer): void {
  let sent = 0;
  const timer = setInterval(() => {
    if (client.closed || sent === bytes.length) clearInterval(timer);
    else client.push(bytes.subarray(sent, ++sent));
  }, 20);
}

/** Runs `misbehave` on a new connection, which must fail as said and end, while others go on. */
async function expectOnlyItEnds(
  relay: TestRelay,
  failure: string,
  misbehave: (client: RawClient) => Promise<unknown>,
): Promise<void> {
  const before = await relay.connect();
  const failures = relay.counter('handshakes_failed', failure);
  const bad = await relay.dial();
  await misbehave(bad);
  await bad.expectClose();
  await relay.untilCounter(['handshakes_failed', failure], (value) => value === failures + 1);
  const after = await relay.connect();
  await before.send(after.publicKey, Buffer.from('still here'));
  expect((await after.expectPacket()).packet.toString()).toBe('still here');
  await relay.untilCounter(['gauge_clients_local'], (value) => value === 2);
  before.destroy();
  after.destroy();
  await relay.untilCounter(['gauge_clients_local'], (value) => value === 0);
}
