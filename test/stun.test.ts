/** STUN on the wire. */

import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMetricsServer, StunServer, type StunServerOptions } from 'derplane';
import { afterEach, describe, expect, test } from 'vitest';
import { watchForNat } from '../dist/cli/stun.js';
import { ask, end, listen } from './support/debug_server.js';
import { startDerplane } from './support/derplane.js';
import { LogWatch } from './support/log_watch.js';
import { attribute, stunRequest, toldAddress, UdpClient } from './support/stun.js';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function serve(options: StunServerOptions = {}): Promise<StunServer> {
  const server = await StunServer.listen({ host: '127.0.0.1', port: 0, ...options });
  cleanups.push(() => server.close());
  return server;
}

async function client(address?: string): Promise<UdpClient> {
  const udp = await UdpClient.bind(address);
  cleanups.push(() => udp.close());
  return udp;
}

/**
 * Sends something valid behind: what came before it was looked at once that is answered. It is sent again while there is no answer, since a
 * full socket loses datagrams.
 */
async function settled(udp: UdpClient, port: number): Promise<void> {
  const transaction = randomBytes(12);
  const again = setInterval(() => void udp.send(stunRequest({ transaction }), port), 1_000);
  await udp.send(stunRequest({ transaction }), port);
  while (!(await udp.receive()).subarray(8, 20).equals(transaction));
  clearInterval(again);
}

describe('a STUN server', () => {
  test('tells a client its address, in 32 bytes', async () => {
    const [server, udp] = [await serve(), await client()];
    const transaction = randomBytes(12);
    await udp.send(stunRequest({ transaction }), server.port);
    const answer = await udp.receive();
    expect(answer).toHaveLength(32);
    expect(answer.subarray(0, 20).toString('hex')).toBe(`0101000c2112a442${transaction.toString('hex')}`);
    expect(toldAddress(answer)).toBe(`127.0.0.1:${udp.port}`);
    expect(server.stats()).toEqual({
      requests: { success: 1, not_stun: 0, read_error: 0, write_error: 0 },
      addrfamily: { ipv4: 1, ipv6: 0 },
      no_local_addr: 0,
      rate_limited: 0,
      told_private: 0,
    });
  });

  test('tells an IPv6 client its address, in 44 bytes', async () => {
    const [server, udp] = [await serve({ host: '::1' }), await client('::1')];
    await udp.send(stunRequest(), server.port, '::1');
    const answer = await udp.receive();
    expect(answer).toHaveLength(44);
    expect(toldAddress(answer)).toBe(`[${'0000:'.repeat(7)}0001]:${udp.port}`);
    expect(server.stats().addrfamily).toEqual({ ipv4: 0, ipv6: 1 });
  });

  test('listens on both families by default, and tells IPv4 clients an IPv4 address', async () => {
    const server = await StunServer.listen({ port: 0 });
    cleanups.push(() => server.close());
    const udp = await client();
    for (const address of ['127.0.0.1', '127.0.0.2']) {
      await udp.send(stunRequest(), server.port, address);
      expect(toldAddress(await udp.receive())).toBe(`127.0.0.1:${udp.port}`);
    }
    expect(server.host).toBe('::');
  });

  test('answers from the address that was asked', async () => {
    const server = await StunServer.listen({ port: 0 });
    cleanups.push(() => server.close());
    for (const address of ['127.0.0.1', '127.0.0.2', '127.9.9.9']) {
      const socket = createSocket('udp4');
      cleanups.push(() => socket.close());
      socket.bind(0, '127.0.0.1');
      await once(socket, 'listening');
      socket.send(stunRequest(), server.port, address);
      const [, from] = (await once(socket, 'message')) as [Buffer, { address: string; port: number }];
      expect(from).toMatchObject({ address, port: server.port });
    }
  });

  test.each([
    ['further attributes', stunRequest({ attributes: attribute(0x0006, Buffer.from('user')) })],
    ['another software in front', stunRequest({ attributes: attribute(0x8022, Buffer.from('x')) })],
  ])('answers a request with %s', async (_, request) => {
    const [server, udp] = [await serve(), await client()];
    await udp.send(request, server.port);
    expect((await udp.receive()).readUInt16BE(0)).toBe(0x0101);
  });

  const valid = stunRequest();
  test.each([
    ['no byte', Buffer.alloc(0)],
    ['a text', Buffer.from('hello')],
    ['another software', stunRequest({ software: 'coturn' })],
    ['a wrong fingerprint', stunRequest({ fingerprintOffset: 1 })],
    ['bytes behind the fingerprint', stunRequest({ trailing: Buffer.from('abcd') })],
    ['an attribute behind the fingerprint', stunRequest({ trailing: attribute(6, Buffer.from('abcd')) })],
    ['an answer', Buffer.concat([Buffer.from([1, 1]), valid.subarray(2)])],
    ['a request cut short', valid.subarray(0, 39)],
    ['a header alone', valid.subarray(0, 20)],
    ['1,500 bytes of noise', randomBytes(1_500)],
    ['60,000 bytes', Buffer.concat([stunRequest({ attributes: attribute(6, Buffer.alloc(60_000)) })])],
  ])('does not answer %s, and counts it', async (_, datagram) => {
    const [server, udp] = [await serve(), await client()];
    await udp.send(datagram, server.port);
    await settled(udp, server.port);
    expect(udp.waiting).toBe(0);
    expect(server.stats().requests).toMatchObject({ success: 1, not_stun: 1 });
  });

  test('goes on through 20,000 datagrams of noise', async () => {
    const [server, udp] = [await serve(), await client()];
    for (let i = 0; i < 20_000; i += 100) {
      await Promise.all(Array.from({ length: 100 }, (_, n) => udp.send(randomBytes((i + n) % 200), server.port)));
    }
    await settled(udp, server.port);
  });

  test('answers so many of one source a second, counts the others', async () => {
    const [server, udp] = [await serve({ answersPerSecond: 5 }), await client()];
    for (let i = 0; i < 50; i++) await udp.send(stunRequest(), server.port);
    await expect.poll(() => server.stats().requests.success + server.stats().rate_limited).toBe(50);
    // The bound gives one more for each 200 ms that sending took.
    expect(server.stats().requests.success).toBeLessThan(50);
    expect(server.stats().requests.success).toBeGreaterThanOrEqual(5);
    const other = await client('127.0.9.1');
    await other.send(stunRequest(), server.port);
    await other.receive();
  });

  test('never answers with more than 1.5 times the question', () => {
    expect(44 / stunRequest().length).toBeLessThanOrEqual(1.5);
  });

  test('names what keeps it from listening', async () => {
    const { port } = await serve();
    await expect(serve({ port })).rejects.toMatchObject({
      code: 'EADDRINUSE',
      syscall: 'listen',
      address: '127.0.0.1',
      port,
    });
    await expect(serve({ host: '192.0.2.1' })).rejects.toMatchObject({ code: 'EADDRNOTAVAIL' });
  });

  test('frees its port when it closes, keeps its figures, and may be closed twice', async () => {
    const server = await serve();
    const udp = await client();
    await settled(udp, server.port);
    await server.close();
    await server.close();
    expect(server.stats().requests.success).toBe(1);
    await serve({ port: server.port });
  });

  test('ends with its scope', async () => {
    let port = 0;
    {
      await using server = await StunServer.listen({ host: '127.0.0.1', port: 0 });
      port = server.port;
    }
    await serve({ port });
  });

  test('has the metrics of derper', async () => {
    const server = await serve();
    const udp = await client();
    await udp.send(Buffer.from('x'), server.port);
    await settled(udp, server.port);
    const metrics = createMetricsServer({ host: '127.0.0.1', stun: server });
    const port = await listen(metrics);
    cleanups.push(() => end(metrics));
    expect(JSON.parse((await ask(port, '/debug/vars')).body)).toMatchObject({
      stun: {
        counter_addrfamily: { ipv4: 1, ipv6: 0 },
        counter_no_local_addr: 0,
        counter_requests: { not_stun: 1, read_error: 0, success: 1, write_error: 0 },
      },
    });
    const { body } = await ask(port, '/debug/varz');
    expect(body).toContain('# TYPE stun_requests counter');
    expect(body).toMatch(/^stun_requests\{disposition="success"\} 1$/m);
    expect(body).toMatch(/^stun_addrfamily\{family="ipv4"\} 1$/m);
    expect(body).toMatch(/^stun_no_local_addr 0$/m);
    expect(body).toMatch(/^derplane_stun_up 1$/m);
  });
});

describe('NAT in front of the relay', () => {
  const watch = (firstPrivate: string, hostname: string, addresses: string[]) => {
    const log = new LogWatch();
    const nat = watchForNat({ firstPrivate }, hostname, log, async () => addresses);
    cleanups.push(() => nat.close());
    return { log, nat };
  };

  test('is told once an answer told a private address although the name is public', async () => {
    const { log, nat } = watch('172.17.0.1:4711', 'derp.example.com', ['10.0.0.9', '8.8.4.4']);
    expect(await log.line(/WARN/)).toMatch(/with the private address 172\.17\.0\.1:4711, while -hostname derp/);
    expect(nat.found).toBe(true);
  });

  test('is told of a public IP address as name', async () => {
    const { log } = watch('10.0.0.1:1', '8.8.4.4', []);
    await log.line(/WARN/);
  });
});

describe('the command', () => {
  async function start(...args: string[]) {
    const folder = await mkdtemp(join(tmpdir(), 'derplane-stun-'));
    cleanups.push(() => rm(folder, { recursive: true, force: true }));
    const relay = await startDerplane(['-a', '127.0.0.1:0', '-c', join(folder, 'key'), ...args]);
    cleanups.push(async () => {
      relay.kill('SIGKILL');
      await relay.ended;
    });
    return relay;
  }

  test('serves STUN on the IP of -a, without DERP with -derp=false', async () => {
    const relay = await start('-derp=false', '-stun-port', '0');
    const [, port] =
      /STUN server listening on 127\.0\.0\.1:(\d+)/.exec(await relay.line(/STUN server listening on/)) ?? [];
    await settled(await client(), Number(port));
  });

  test('goes on without STUN when its port is taken, and says so in one line', async () => {
    const { port } = await serve();
    const relay = await start('-stun-addr', `127.0.0.1:${port}`);
    expect(await relay.line(/STUN is not served/)).toMatch(
      new RegExp(
        `derper: STUN is not served: -stun-addr 127\\.0\\.0\\.1:${port}: address already in use; relaying goes on`,
      ),
    );
    const { body } = await ask(relay.port, '/debug/varz');
    expect(body).toMatch(/^derplane_stun_up 0$/m);
    expect(body).toMatch(/^stun_requests\{disposition="success"\} 0$/m);
  });
});
