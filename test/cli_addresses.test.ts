/** Addresses that flags name: `-a`, the host of `-http-port`, `-metrics-addr`. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { formatAddress, listenHost, parseAddress } from '../dist/cli/address.js';
import { makeCertificate } from './support/certificates.js';
import { derplane, type RelayProcess, startDerplane } from './support/derplane.js';
import { isListening } from './support/ports.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-addresses-'));
afterAll(() => rmSync(folder, { recursive: true }));

const running: RelayProcess[] = [];
afterEach(async () => {
  for (const relay of running.splice(0)) {
    relay.kill('SIGKILL');
    await relay.ended;
  }
});

const BASE = ['-c', join(folder, 'derper.key'), '-shards', '1', '-stun=false'];

async function start(...args: string[]): Promise<RelayProcess> {
  const relay = await startDerplane([...BASE, ...args]);
  running.push(relay);
  return relay;
}

const portOf = (line: string) => Number(line.match(/:(\d+)$/)![1]);
const machineHasIPv6 = networkInterfaces()['lo']?.some(({ address }) => address === '::1') ?? false;

/** Whether a port answers on loopback by IPv4, and by IPv6 where the machine has it. */
async function answersOnBoth(port: number): Promise<boolean> {
  return (await isListening(port, '127.0.0.1')) && (!machineHasIPv6 || (await isListening(port, '::1')));
}

describe('an address', () => {
  test.each([
    [':3340', { host: '', port: 3340 }],
    ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
    ['0.0.0.0:443', { host: '0.0.0.0', port: 443 }],
    ['[::]:443', { host: '::', port: 443 }],
    ['[::1]:65535', { host: '::1', port: 65535 }],
    ['[fe80::1%lo]:1', { host: 'fe80::1%lo', port: 1 }],
    ['localhost:http', { host: 'localhost', port: 80 }],
    [':https', { host: '', port: 443 }],
    [':+8443', { host: '', port: 8443 }],
    [':00443', { host: '', port: 443 }],
  ])('%s is read', (text, address) => {
    expect(parseAddress('-a', text)).toEqual({ flag: '-a', ...address });
  });

  test.each([
    ['', 'missing port'],
    ['1.2.3.4', 'missing port'],
    ['::1', 'too many colons'],
    ['[::1]', 'missing port'],
    [':65536', '"65536" is not a port'],
    [':x', '"x" is not a port'],
    [':', '"" is not a port'],
    [':-1', '"-1" is not a port'],
    [':4 43', '"4 43" is not a port'],
    [':constructor', '"constructor" is not a port'],
    ['::1:80', 'too many colons'],
    ['[x]:80', '"x" is not an IPv6 address'],
    ['[127.0.0.1]:80', '"127.0.0.1" is not an IPv6 address'],
    ['a b:80', '"a b" is not a host'],
    ['http://h:80', 'too many colons'],
  ])('%j is refused with the flag and the reason', (text, reason) => {
    expect(() => parseAddress('-a', text)).toThrow(`-a ${JSON.stringify(text)}: invalid server address: ${reason}`);
  });

  test('with an IPv6 host is written in brackets', () => {
    expect(formatAddress({ host: '::1', port: 1 })).toBe('[::1]:1');
  });

  test.each([
    ['', undefined],
    ['0.0.0.0', undefined],
    ['::', undefined],
    ['0:0:0:0:0:0:0:0', undefined],
    ['::ffff:0.0.0.0', undefined],
    ['127.0.0.1', '127.0.0.1'],
    ['::ffff:127.0.0.1', '127.0.0.1'],
    ['0:0::1', '::1'],
    ['fe80::1%lo', 'fe80::1%lo'],
    ['localhost', '127.0.0.1'],
  ])('with host "%s" listens on %s (undefined: both families)', async (host, ip) => {
    expect(await listenHost({ flag: '-a', host, port: 1 })).toBe(ip);
  });
});

describe('an unspecified address of either family means both', () => {
  test.each(['', '0.0.0.0', '[::]'])('in -a %s:0 and -metrics-addr %s:0', async (host) => {
    const relay = await start('-a', `${host}:0`, '-metrics-addr', `${host}:0`);
    expect(relay.address).toBe(`${host}:${relay.port}`);
    const metrics = portOf(await relay.line(/derper: serving metrics on \S+/));
    expect([await answersOnBoth(relay.port), await answersOnBoth(metrics)]).toEqual([true, true]);
  });

  test('for -http-port, which takes the host of -a', async () => {
    const { cert, keyPem } = await makeCertificate();
    writeFileSync(join(folder, 'derp.example.com.crt'), cert);
    writeFileSync(join(folder, 'derp.example.com.key'), keyPem);
    const tls = ['-certmode', 'manual', '-certdir', folder, '-hostname', 'derp.example.com', '-http-port', '0'];
    const relay = await start('-a', '0.0.0.0:0', ...tls);
    expect(await answersOnBoth(portOf(await relay.line(/derper: serving plain HTTP on \S+/)))).toBe(true);
  });
});

describe('an address that cannot be used is a start error that names its flag', () => {
  test.each([
    ['-a', '192.0.2.9:0', '-a 192.0.2.9:0: address not available on this machine'],
    ['-a', '[2001:db8::9]:0', '-a [2001:db8::9]:0: address not available on this machine'],
    ['-a', 'relay.invalid:0', '-a relay.invalid:0: '],
    ['-metrics-addr', '192.0.2.9:0', '-metrics-addr 192.0.2.9:0: address not available on this machine'],
    ['-metrics-addr', 'relay.invalid:0', '-metrics-addr relay.invalid:0: '],
  ])('%s %s', async (flag, text, message) => {
    const others = flag === '-a' ? [] : ['-a', '127.0.0.1:0'];
    const { code, stderr } = await derplane([...BASE, ...others, flag, text]);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split('\n').at(-1)).toContain(message);
  });
});
