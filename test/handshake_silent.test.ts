/** Connections that stop before they are clients: they make room for newcomers, and nobody can lock others out with them. */
import { duplexPair } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { TlsContext } from 'derplane';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { Frame, frame, type RawClient, upgradeHead } from './support/raw_client.js';
import { patterned, type RelayOptions, type TestRelay, withRelay } from './support/relay.js';

/** Milliseconds between two bytes of a client that drips: less than the time after which a connection counts as silent. */
const DRIP = 100;

/** Where a client stops; each goes on from the one before. */
const stops: [string, (client: RawClient) => Promise<unknown>][] = [
  ['having sent nothing', async () => undefined],
  ['in the middle of the request head', (client) => client.write(upgradeHead().subarray(0, 20))],
  ['behind ServerKey', async (client) => client.write(upgradeHead().subarray(20)).then(() => client.readHead())],
  ['in the middle of ClientInfo', (client) => client.write(frame(Frame.clientInfo, patterned(9), 100))],
];

describe('a newcomer gets in although the relay is full of connections that stopped', () => {
  it.each(stops.map(([where], index) => [where, index] as const))('%s', (_, last) =>
    withFullRelay({ maxPending: 3 }, async (relay) => {
      const silent = await Promise.all(Array.from({ length: 3 }, () => stopped(relay, last)));
      await expectNewcomer(relay);
      await expect.poll(() => silent.filter((client) => client.closed).length).toBeGreaterThan(0);
      expect(relay.counter('evicted_connections', 'handshakes')).toBeGreaterThan(0);
    }),
  );

  it('and drip a byte now and then', () =>
    withFullRelay({ maxPending: 3 }, async (relay) => {
      const silent = await Promise.all(Array.from({ length: 3 }, () => stopped(relay, 1)));
      for (const client of silent) drip(client);
      await expectNewcomer(relay);
      expect(relay.counter('evicted_connections', 'handshakes')).toBeGreaterThan(0);
    }));

  it('and hold all bytes that handshakes may hold', () =>
    withFullRelay({ maxBytes: 14_000 }, async (relay) => {
      const silent = await stopped(relay, 2);
      await silent.write(frame(Frame.clientInfo, patterned(6_000), 200_000));
      await expectNewcomer(relay);
      await silent.expectClose();
      expect(relay.counter('evicted_connections', 'handshake_bytes')).toBeGreaterThan(0);
    }));

  it('behind their ClientHello', () =>
    withFullRelay({ maxPending: 2, tls: true }, async (relay) => {
      const silent = await Promise.all([relay.dial(), relay.dial()]);
      await expectNewcomer(relay);
      await expect.poll(() => silent.some((client) => client.closed)).toBe(true);
    }));

  it('and wait for a certificate that is still being issued', () => {
    const context = new TlsContext();
    context.set('127.0.0.1', [inject('relayCertificate')]);
    context.expect('later.example.com');
    return withFullRelay({ maxPending: 2, tls: context }, async (relay) => {
      for (let n = 0; n < 2; n++) {
        const waiting = connectTls({ port: relay.port, servername: 'later.example.com', rejectUnauthorized: false });
        waiting.on('error', () => undefined);
        onTestFinished(() => void waiting.destroy());
      }
      await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 2);
      await expectNewcomer(relay);
    });
  });

  it('and were brought by an embedder, who hears of their end', () =>
    withFullRelay({ maxPending: 1 }, async (relay) => {
      const [ours, theirs] = duplexPair();
      theirs.resume();
      const served = relay.server.accept(ours, Buffer.alloc(0), '192.0.2.1:7');
      await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 1);
      await expectNewcomer(relay);
      await served;
    }));
});

describe('a source with more than its share', () => {
  it('loses its own oldest silent connection, and its newcomers get in', () =>
    withFullRelay({ maxPending: 10_000, maxPendingPerSource: 2 }, async (relay) => {
      const others = await Promise.all(
        ['127.0.0.3', '127.0.0.4'].map((localAddress) => relay.dial(undefined, { localAddress })),
      );
      const flood = [await relay.dial(undefined, { localAddress: '127.0.0.2' })];
      const evicted = ['evicted_connections', 'source_share'];
      while (relay.counter(...evicted) === 0) flood.push(await relay.dial(undefined, { localAddress: '127.0.0.2' }));
      await flood[0]!.expectClose();
      await (await relay.dial(undefined, { localAddress: '127.0.0.2' })).open();
      expect(others.map((client) => client.closed)).toEqual([false, false]);
      expect(relay.counter('evicted_connections', 'handshakes')).toBe(0);
      expect(relay.counter('refused_connections', 'handshakes')).toBe(0);
    }));

  it('exceeds it while its connections make progress', () =>
    withFullRelay({ maxPending: 100, maxPendingPerSource: 1 }, async (relay) => {
      await Promise.all(Array.from({ length: 20 }, () => relay.connect()));
      expect(relay.counter('gauge_current_connections')).toBe(20);
    }));
});

describe('the first byte', () => {
  it('has a deadline of its own, after which the others go on', () =>
    withFullRelay({ firstByteTimeout: 200, requestTimeout: 60_000 }, async (relay) => {
      const slow = await relay.dial();
      await slow.write(upgradeHead().subarray(0, 1));
      const mute = await relay.dial();
      await mute.expectClose();
      await relay.untilCounter(['handshakes_failed', 'silent'], (value) => value === 1);
      await slow.write(upgradeHead().subarray(1));
      await slow.readHead();
      await slow.handshake();
    }));
});

/** Without TLS where nothing else is said: then the relay hears nothing of a client that only connects. */
function withFullRelay(
  { tls = false, ...handshake }: RelayOptions['handshake'] & Pick<RelayOptions, 'tls'>,
  body: (relay: TestRelay) => Promise<void>,
): Promise<void> {
  const patient = { requestTimeout: 3_600_000, firstByteTimeout: 3_600_000, clientInfoTimeout: 3_600_000 };
  return withRelay({ shards: 1, tls, handshake: { ...patient, ...handshake } }, body);
}

async function stopped(relay: TestRelay, last: number): Promise<RawClient> {
  const client = await relay.dial();
  for (const [, go] of stops.slice(0, last + 1)) await go(client);
  return client;
}

function drip(client: RawClient): void {
  const timer = setInterval(() => {
    if (client.closed) clearInterval(timer);
    else client.push(Buffer.from('x'));
  }, DRIP);
}

/** Tries until one gets in, as a client does: what is silent must have been so for a moment. */
async function expectNewcomer(relay: TestRelay): Promise<void> {
  const attempt = () =>
    relay.connect().then(
      () => true,
      () => false,
    );
  await expect.poll(attempt, { timeout: 15_000 }).toBe(true);
}
