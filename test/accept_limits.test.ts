/** Limits on accepting connections. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, expect, test } from 'vitest';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { withRelay } from './support/relay.js';

/** Whether a new connection is served: it hears something, or nothing ends it while others are. */
async function isAccepted(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  socket.write('GET /derp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  socket.on('error', () => {});
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk;
  });
  await once(socket, 'close');
  return answer !== '';
}

describe('beyond the burst', () => {
  test('connections are closed and counted, and the relay goes on', () =>
    withRelay({ shards: 1, tls: false, acceptLimit: { perSecond: 0, burst: 3 } }, async (relay) => {
      const { server, port } = relay;
      const accepted: boolean[] = [];
      for (let i = 0; i < 5; i++) accepted.push(await isAccepted(port));
      expect(accepted).toEqual([true, true, true, false, false]);
      expect(server.expVar().refused_connections).toMatchObject({ accept_limit: 2 });
    }));

  test('a second brings more', () =>
    withRelay({ shards: 1, tls: false, acceptLimit: { perSecond: 20, burst: 1 } }, async ({ port }) => {
      expect(await isAccepted(port)).toBe(true);
      await expect.poll(() => isAccepted(port), { interval: 60, timeout: 20_000 }).toBe(true);
    }));

  test('all listeners share the limit', () =>
    withRelay({ shards: 1, tls: false, acceptLimit: { perSecond: 0, burst: 2 } }, async ({ server, port }) => {
      const other = await server.listen({ host: '127.0.0.1', port: 0 });
      expect([await isAccepted(port), await isAccepted(other.port), await isAccepted(port)]).toEqual([
        true,
        true,
        false,
      ]);
    }));

  test('TLS listeners count it as derper does', () =>
    withRelay({ shards: 1, tls: true, acceptLimit: { perSecond: 0, burst: 0 } }, async (relay) => {
      expect(await isAccepted(relay.port)).toBe(false);
      expect(relay.server.expVar()).toMatchObject({ tls_listener: { counter_rejected_connections: 1 } });
    }));
});

test('a limit without a burst never limits', () =>
  withRelay({ shards: 1, tls: false, acceptLimit: { perSecond: 0 } }, async ({ port }) => {
    for (let i = 0; i < 5; i++) expect(await isAccepted(port)).toBe(true);
  }));

describe('the flags', () => {
  const config = (...args: string[]) => relayConfig(parseFlags(FLAGS, ['-dev', '-stun=false', ...args]), {}, true);

  test('reach the server', () => {
    const { server, warnings } = config('-accept-connection-limit=5.5', '-accept-connection-burst=7');
    expect(server.acceptLimit).toEqual({ perSecond: 5.5, burst: 7 });
    expect(warnings).toEqual([]);
  });

  test('without a burst warn that nothing is limited', () => {
    const { server, warnings } = config('-accept-connection-limit=5');
    expect(server.acceptLimit?.burst).toBe(Number.POSITIVE_INFINITY);
    expect(warnings).toEqual([expect.stringContaining('limits nothing without -accept-connection-burst')]);
  });

  test.each(['-accept-connection-limit=-1', '-accept-connection-limit=NaN', '-accept-connection-burst=-1'])(
    'refuse %s',
    (flag) => {
      expect(() => config(flag)).toThrow();
    },
  );

  test('-trust-proxy reaches the server, and says what is no range', () => {
    expect(config('-trust-proxy=10.0.0.0/8, 2001:db8::/32,192.0.2.1').server.trustProxy).toEqual([
      '10.0.0.0/8',
      '2001:db8::/32',
      '192.0.2.1',
    ]);
    expect(() => config('-trust-proxy=10.0.0.0/33')).toThrow(
      '-trust-proxy[0] "10.0.0.0/33": must be an address range as 192.0.2.0/24 or 2001:db8::/32, or an IP address',
    );
  });
});
