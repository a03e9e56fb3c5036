/** The one form in which `-mesh-with`, `addMeshPeer` and clients are told where a relay is. */
import { PrivateKey, RelayClient } from 'derplane';
import { describe, expect, test } from 'vitest';
import { parseRelayAddress } from '../dist/client/relay_address.js';
import { parseMeshHost } from '../dist/server/mesh_host.js';

const key = PrivateKey.generate();

describe('the address of a relay', () => {
  test.each([
    ['derp.test', 'derp.test', 'https://derp.test/derp', undefined],
    ['derp.test/derp', 'derp.test', 'https://derp.test/derp', undefined],
    ['https://derp.test', 'derp.test', 'https://derp.test/derp', undefined],
    ['https://derp.test/', 'derp.test', 'https://derp.test/derp', undefined],
    ['https://derp.test/derp', 'derp.test', 'https://derp.test/derp', undefined],
    ['HTTPS://derp.test/derp', 'derp.test', 'https://derp.test/derp', undefined],
    ['http://derp.test', 'derp.test', 'http://derp.test/derp', undefined],
    ['http://127.0.0.1:1/derp', '127.0.0.1:1', 'http://127.0.0.1:1/derp', undefined],
    ['derp.test:444', 'derp.test:444', 'https://derp.test:444/derp', undefined],
    ['derp.test:443', 'derp.test:443', 'https://derp.test/derp', undefined],
    ['derp.test:444/derp', 'derp.test:444', 'https://derp.test:444/derp', undefined],
    ['derp.test:444/10.0.0.1', 'derp.test:444', 'https://derp.test:444/derp', '10.0.0.1'],
    ['derp.test:444/10.0.0.1/derp', 'derp.test:444', 'https://derp.test:444/derp', '10.0.0.1'],
    ['https://derp.test/inside.test/derp', 'derp.test', 'https://derp.test/derp', 'inside.test'],
    ['http://derp.test:80/inside', 'derp.test:80', 'http://derp.test/derp', 'inside'],
    ['derp.test/fd00::1', 'derp.test', 'https://derp.test/derp', 'fd00::1'],
    ['derp.test/[fd00::1]', 'derp.test', 'https://derp.test/derp', '[fd00::1]'],
    ['derp', 'derp', 'https://derp/derp', undefined],
    ['192.0.2.1', '192.0.2.1', 'https://192.0.2.1/derp', undefined],
    ['[2001:db8::1]:444', '[2001:db8::1]:444', 'https://[2001:db8::1]:444/derp', undefined],
    ['http://[::1]', '[::1]', 'http://[::1]/derp', undefined],
    ['http://derp.test/derp?relay=2', 'derp.test', 'http://derp.test/derp?relay=2', undefined],
  ])('%s is read alike by all', (address, name, url, dialHost) => {
    const expected = { name, url, dialHost };
    const read = ({ url, ...rest }: ReturnType<typeof parseRelayAddress>) => ({ ...rest, url: url.href });
    expect(read(parseRelayAddress(address, 'url'))).toEqual(expected);
    expect(read(parseMeshHost(address, true))).toEqual(expected);
    expect(new RelayClient(key, address).url.href).toBe(url);
  });

  test('may be a URL object', () => {
    expect(new RelayClient(key, new URL('http://127.0.0.1:3340/derp')).url.href).toBe('http://127.0.0.1:3340/derp');
  });

  test.each([
    ['', 'host: is empty'],
    ['https://', 'host: is empty'],
    ['/derp', 'host: is empty'],
    [':443', 'host ":443": must be a DNS name'],
    ['derp.test/', 'dial host: is empty'],
    ['a/b/c', 'too many components in host tuple "a/b/c"'],
    ['http://a/b/c', 'too many components in host tuple "a/b/c"'],
    ['https://a/b/derp/c', 'too many components in host tuple'],
    ['ws://derp.test', 'scheme ws: must be https or http'],
    ['ftp://derp.test/derp', 'scheme ftp: must be https or http'],
    ['derp.test:x', 'port "x": must be an integer from 1 to 65535'],
    ['derp.test:', 'port "": must be'],
    ['derp.test:0', 'port "0": must be'],
    ['http://derp.test:65536', 'port "65536": must be'],
    ['fd00::1', 'write an IPv6 address in brackets: [fd00::1]'],
    ['[fd00::g]', 'host "[fd00::g]": must be'],
    ['a^b', 'host "a^b": must be'],
    ['a%20b', 'host "a%20b": must be'],
    ['derp.test:1/10.0.0.1:2', 'dial host "10.0.0.1:2": the port belongs to the name in front of the slash'],
    ['http://derp.test:1/[::1]:2', 'the port belongs to the name in front of the slash'],
    ['derp.test/a\\b', 'dial host "a\\\\b": must be'],
    ['http://derp.test?x', 'a query needs a URL that ends with /derp'],
    ['derp.test/derp?x', 'a query needs a URL that ends with /derp'],
    ['http://derp.test/derp#x', 'no fragment'],
    ['http://user:secret@derp.test/derp', 'takes no user or password'],
    ['user:secret@derp.test', 'takes no user or password'],
    [' derp.test', 'entries are not trimmed'],
    ['derp.test ', 'entries are not trimmed'],
    ['derp.test/a b', 'entries are not trimmed'],
    ['derp.test\u0000', 'control character'],
  ])('%j is refused: %s', (address, message) => {
    for (const read of [() => parseMeshHost(address, true), () => new RelayClient(key, address)]) {
      expect(read).toThrow(expect.objectContaining({ name: 'DerpError', code: 'ERR_DERP_BAD_OPTION' }));
      expect(read).toThrow(message);
      expect(read).not.toThrow('secret');
    }
  });
});

describe('a plain mesh link', () => {
  test.each([
    'http://127.0.0.1:1/derp',
    'http://127.0.0.2:3340',
    'http://localhost',
    'http://LOCALHOST/derp',
    'http://[::1]:3340/derp',
    'http://derp.test:3340/127.0.0.2/derp',
    'http://derp.test/[::1]',
    'http://derp.test/::1',
  ])('to %s stays on loopback', (entry) => {
    expect(parseMeshHost(entry, false).url.protocol).toBe('http:');
  });

  test.each(['http://192.0.2.1:3340', 'http://derp.test/derp', 'http://localhost/192.0.2.1', 'http://127.example.com'])(
    'to %s leaves it, which must be allowed',
    (entry) => {
      expect(() => parseMeshHost(entry, false)).toThrow('-mesh-insecure-http');
      expect(parseMeshHost(entry, true).url.protocol).toBe('http:');
    },
  );
});
