import { describe, expect, test } from 'vitest';
import { parseMeshHost } from '../dist/server/mesh_host.js';

describe('a mesh host', () => {
  test.each([
    ['http://127.0.0.2:3340', '127.0.0.2:3340', 'http://127.0.0.2:3340/derp', undefined],
    ['http://localhost', 'localhost', 'http://localhost/derp', undefined],
    ['http://[::1]:3340', '[::1]:3340', 'http://[::1]:3340/derp', undefined],
    [
      'http://derp1.example.com:3340/127.0.0.2',
      'derp1.example.com:3340',
      'http://derp1.example.com:3340/derp',
      '127.0.0.2',
    ],
    ['http://derp1.example.com/[::1]', 'derp1.example.com', 'http://derp1.example.com/derp', '[::1]'],
    ['derp1.example.com', 'derp1.example.com', 'https://derp1.example.com/derp', undefined],
    ['derp1.example.com:443', 'derp1.example.com:443', 'https://derp1.example.com/derp', undefined],
    ['derp1.example.com:444/10.0.0.1', 'derp1.example.com:444', 'https://derp1.example.com:444/derp', '10.0.0.1'],
    ['derp1.example.com/fd00::1', 'derp1.example.com', 'https://derp1.example.com/derp', 'fd00::1'],
    ['192.0.2.1', '192.0.2.1', 'https://192.0.2.1/derp', undefined],
    ['[2001:db8::1]:444', '[2001:db8::1]:444', 'https://[2001:db8::1]:444/derp', undefined],
  ])('%s is called %s', (entry, name, url, dialHost) => {
    const host = parseMeshHost(entry, false);
    expect({ ...host, url: host.url.href }).toEqual({ name, url, dialHost });
  });

  test.each([
    'http://192.0.2.1:3340',
    'http://derp1.example.com',
    'http://localhost/192.0.2.1',
    'http://127.example.com',
  ])('%s is off loopback, which must be allowed', (entry) => {
    expect(() => parseMeshHost(entry, false)).toThrow('-mesh-insecure-http');
    expect(parseMeshHost(entry, true).name).toBe(entry.slice('http://'.length).split('/')[0]);
  });

  test.each([
    ['derp1.example.com:444/10.0.0.1:444', 'the port belongs to the name in front of the slash'],
    ['derp1.example.com:x', '"derp1.example.com:x" is no HOST[:PORT]'],
    ['derp1.example.com/', 'mesh host "derp1.example.com/": empty'],
    ['a/b/c', 'too many components in host tuple "a/b/c"'],
    ['http://a/b/c', 'too many components in host tuple "a/b/c"'],
    ['', 'mesh host "": empty'],
    ['http://', 'mesh host "http://": empty'],
    ['http://localhost/', 'mesh host "http://localhost/": empty'],
    [' http://localhost', 'entries are not trimmed'],
    ['http:// localhost', 'entries are not trimmed'],
    ['http://localhost ', 'entries are not trimmed'],
    ['http://localhost:x', '"localhost:x" is no HOST[:PORT]'],
    ['http://localhost:65536', '"localhost:65536" is no HOST[:PORT]'],
    ['http://user@localhost', '"user@localhost" is no HOST[:PORT]'],
    ['http://localhost?x', '"localhost?x" is no HOST[:PORT]'],
    ['http://localhost:1/127.0.0.1:2', 'the port belongs to the name in front of the slash'],
    ['http://localhost:1/127.0.0.1:80', 'the port belongs to the name in front of the slash'],
    ['http://localhost:1/[::1]:2', 'the port belongs to the name in front of the slash'],
    ['http://localhost/a b', 'entries are not trimmed'],
    ['https://localhost', 'too many components in host tuple "https://localhost"'],
  ])('%j is refused: %s', (entry, message) => {
    expect(() => parseMeshHost(entry, true)).toThrow(expect.objectContaining({ code: 'ERR_DERP_BAD_OPTION' }));
    expect(() => parseMeshHost(entry, true)).toThrow(message);
  });
});
