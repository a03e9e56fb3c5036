import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { debugAccess } from '../dist/http/debug_access.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-'));
afterAll(() => rmSync(folder, { recursive: true }));

function from(remoteAddress: string | undefined, more: Partial<IncomingMessage> = {}): IncomingMessage {
  return { method: 'GET', url: '/debug/varz', headers: {}, socket: { remoteAddress }, ...more } as IncomingMessage;
}

describe('the debug pages are', () => {
  test.each([
    '127.0.0.1',
    '127.9.9.9',
    '::1',
    '::ffff:127.0.0.1',
    '100.64.0.0',
    '100.127.255.255',
    '::ffff:100.100.100.100',
    '100.115.91.255',
    '100.115.94.0',
    'fd7a:115c:a1e0::1',
    'fd7a:115c:a1e0:ffff::1%eth0',
  ])('open to %s', (ip) => expect(debugAccess({})(from(ip))).toBe(true));

  test.each([
    '192.0.2.1',
    '::ffff:192.0.2.1',
    '100.63.255.255',
    '100.128.0.0',
    '100.115.92.0',
    '::ffff:100.115.93.255',
    'fd7a:115c:a1e1::1',
    '10.0.0.1',
    '::',
    '',
    undefined,
  ])('closed to %s', (ip) => expect(debugAccess({})(from(ip))).toBe(false));

  test('closed to requests that a proxy forwarded, even from this machine', () => {
    const headers = { 'x-forwarded-for': '127.0.0.1' };
    expect(debugAccess({})(from('127.0.0.1', { headers }))).toBe(false);
    expect(debugAccess({ TS_ALLOW_DEBUG_IP: '192.0.2.1' })(from('192.0.2.1', { headers }))).toBe(false);
  });

  test('open to the one address of TS_ALLOW_DEBUG_IP', () => {
    const access = debugAccess({ TS_ALLOW_DEBUG_IP: '192.0.2.7' });
    expect(access(from('192.0.2.7'))).toBe(true);
    expect(access(from('::ffff:192.0.2.7'))).toBe(true);
    expect(access(from('192.0.2.8'))).toBe(false);
  });

  test('open to the ranges of TS_DEBUG_TRUSTED_CIDRS', () => {
    const access = debugAccess({ TS_DEBUG_TRUSTED_CIDRS: '10.1.0.0/16, 2001:db8::/32' });
    expect(access(from('10.1.255.255'))).toBe(true);
    expect(access(from('2001:db8:1::1'))).toBe(true);
    expect(access(from('10.2.0.0'))).toBe(false);
    expect(access(from('2001:db9::1'))).toBe(false);
  });

  test.each([
    ['TS_ALLOW_DEBUG_IP', 'localhost'],
    ['TS_ALLOW_DEBUG_IP', '10.0.0.0/8'],
    ['TS_DEBUG_TRUSTED_CIDRS', '10.0.0.0'],
    ['TS_DEBUG_TRUSTED_CIDRS', '10.0.0.0/33'],
    ['TS_DEBUG_TRUSTED_CIDRS', '10.0.0.0/'],
    ['TS_DEBUG_TRUSTED_CIDRS', '10.0.0.0/8,x/8'],
  ])('an error at start with %s=%s', (name, value) => {
    const failure = expect.objectContaining({ code: 'ERR_DERP_BAD_OPTION', message: expect.stringContaining(name) });
    expect(() => debugAccess({ [name]: value })).toThrow(failure);
  });
});

describe('with the key of TS_DEBUG_KEY_PATH', () => {
  const path = join(folder, 'key');
  writeFileSync(path, ' open sesame\n');
  const access = debugAccess({ TS_DEBUG_KEY_PATH: path });
  const asking = (query: string, more: Partial<IncomingMessage> = {}) =>
    from('192.0.2.1', { url: `/debug/varz${query}`, ...more });

  test('a stranger gets in, through a proxy too', () => {
    expect(access(asking('?debugkey=open%20sesame'))).toBe(true);
    expect(access(asking('?x=1&debugkey=open+sesame', { headers: { 'x-forwarded-for': '1.2.3.4' } }))).toBe(true);
  });

  test.each(['', '?debugkey=', '?debugkey=open', '?debugkey=open%20sesame%20', '?DEBUGKEY=open%20sesame'])(
    'the query %j does not open',
    (query) => expect(access(asking(query))).toBe(false),
  );

  test('only a GET opens', () => {
    expect(access(asking('?debugkey=open%20sesame', { method: 'HEAD' }))).toBe(false);
  });

  test('a file that is empty or missing opens to nobody', () => {
    const empty = join(folder, 'empty');
    writeFileSync(empty, '\n');
    for (const file of [empty, join(folder, 'missing')]) {
      const nobody = debugAccess({ TS_DEBUG_KEY_PATH: file });
      expect(nobody(asking('?debugkey='))).toBe(false);
      expect(nobody(asking('?debugkey=x'))).toBe(false);
    }
  });
});
