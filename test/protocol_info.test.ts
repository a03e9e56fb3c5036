import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Box } from '../dist/protocol/box.js';
import { FRAME_HEADER_LENGTH, FrameType } from '../dist/protocol/frame.js';
import { readGoObject } from '../dist/protocol/go_json.js';
import {
  type ClientInfo,
  decodeClientInfo,
  decodeServerInfo,
  encodeClientInfo,
  encodeServerInfo,
  openClientInfo,
  openServerInfo,
  sealClientInfo,
  sealServerInfo,
} from '../dist/protocol/info.js';
import { PrivateKey } from '../dist/protocol/key.js';

const K1 = '1a'.repeat(32);
const K2 = '2b'.repeat(32);
const none: ClientInfo = { version: 0, canAckPings: false, isProber: false, appName: '' };
const decode = (json: string) => decodeClientInfo(Buffer.from(json));
const refused = expect.objectContaining({ code: 'ERR_DERP_CLIENT_INFO' });

describe('ClientInfo accepts, as Go does', () => {
  it.each<[string, string, Partial<ClientInfo>]>([
    ['nothing', '{}', {}],
    ['null', ' null\n', {}],
    [
      'all members',
      `{"meshKey":"${K1}","version":2,"CanAckPings":true,"IsProber":true,"AppName":"x"}`,
      { meshKey: K1, version: 2, canAckPings: true, isProber: true, appName: 'x' },
    ],
    [
      'names in any case',
      `{"MESHKEY":"${K1}","Version":2,"canackpings":true}`,
      { meshKey: K1, version: 2, canAckPings: true },
    ],
    ['names with the Kelvin sign and the long s', `{"me\u017fh\u212aey":"${K1}"}`, { meshKey: K1 }],
    ['names with escapes', '{"\\u0076ersion":7}', { version: 7 }],
    [
      'the last of duplicates',
      `{"version":1,"VERSION":2,"Version":3,"meshKey":"${K1}","MeshKey":"${K2}"}`,
      { version: 3, meshKey: K2 },
    ],
    ['null, which leaves what was there', '{"version":2,"version":null,"AppName":null}', { version: 2 }],
    ['unknown members of any shape', '{"a":[1,{"b":[[],{}]}],"c":null,"d":-1.5e+7,"version":2}', { version: 2 }],
    ['space anywhere', '\t{ "version" :\r\n2 , "x" : [ 1 , 2 ] }\n', { version: 2 }],
    ['negative and large integers', '{"version":-9223372036854775808}', { version: -(2 ** 63) }],
    ['minus zero', '{"version":-0}', { version: 0 }],
    ['upper case mesh keys', `{"meshKey":"${K1.toUpperCase()}"}`, { meshKey: K1 }],
    ['mesh keys of zeros', `{"meshKey":"${'0'.repeat(64)}"}`, { meshKey: '0'.repeat(64) }],
    ['mesh keys written with escapes', `{"meshKey":"\\u0031a${K1.slice(2)}"}`, { meshKey: K1 }],
    ['any text as name of the app', '{"AppName":"\\"\\u00e9\\ud83d\\ude00é😀"}', { appName: '"é😀é😀' }],
    ['members named like those of every object', '{"__proto__":1,"constructor":2,"toString":3}', {}],
    ['deep nesting of what it ignores', `{"x":${'['.repeat(9_999)}${']'.repeat(9_999)}}`, {}],
  ])('%s', (_name, json, info) => {
    expect(decode(json)).toEqual({ ...none, ...info });
  });
});

describe('ClientInfo refuses, as Go does', () => {
  it.each([
    ['nothing at all', ''],
    ['a number', '2'],
    ['a text', '"x"'],
    ['an array', '[]'],
    ['trailing text', '{}x'],
    ['two objects', '{}{}'],
    ['a byte order mark', '\ufeff{}'],
    ['an object without end', '{"version":2'],
    ['a trailing comma', '{"version":2,}'],
    ['a missing comma', '{"version":2 "x":1}'],
    ['a name without quotes', '{version:2}'],
    ['single quotes', "{'version':2}"],
    ['a missing colon', '{"version" 2}'],
    ['a missing value', '{"version":}'],
    ['an integer as text', '{"version":"2"}'],
    ['a fraction as integer', '{"version":2.5}'],
    ['2.0 as integer', '{"version":2.0}'],
    ['an exponent as integer', '{"version":2e0}'],
    ['an integer over 64 bits', '{"version":9223372036854775808}'],
    ['an integer of a thousand digits', `{"version":${'9'.repeat(1000)}}`],
    ['a leading zero', '{"version":02}'],
    ['a leading plus', '{"version":+2}'],
    ['a bare minus', '{"x":-}'],
    ['a point without digits', '{"x":1.}'],
    ['an exponent without digits', '{"x":1e+}'],
    ['a boolean as integer', '{"version":true}'],
    ['an integer as boolean', '{"CanAckPings":1}'],
    ['a text as boolean', '{"IsProber":"true"}'],
    ['an object as text', '{"AppName":{}}'],
    ['a wrong type before a right one', '{"version":"2","version":2}'],
    ['a wrong type under another case', '{"version":2,"VERSION":[]}'],
    ['an empty mesh key', '{"meshKey":""}'],
    ['null as mesh key', '{"meshKey":null}'],
    ['a number as mesh key', '{"meshKey":5}'],
    ['a mesh key of 63 digits', `{"meshKey":"${K1.slice(1)}"}`],
    ['a mesh key of 65 digits', `{"meshKey":"${K1}0"}`],
    ['a mesh key with another character', `{"meshKey":"${K1.slice(1)}g"}`],
    ['a bad mesh key before a good one', `{"meshKey":"","meshKey":"${K1}"}`],
    ['a good mesh key before null', `{"meshKey":"${K1}","meshKey":null}`],
    ['a control character in a text', '{"AppName":"a\nb"}'],
    ['a bad escape', '{"AppName":"\\x41"}'],
    ['a short escape', '{"AppName":"\\u12"}'],
    ['a text without end', '{"AppName":"abc'],
    ['a text that ends in a backslash', '{"AppName":"abc\\'],
    ['a misspelt literal', '{"x":nul}'],
    ['NaN', '{"x":NaN}'],
    ['brackets that do not match', '{"x":[1}]'],
    ['a comma after an opening bracket', '{"x":[,1]}'],
    ['a comment', '{/**/}'],
    ['nesting over 10,000', `{"x":${'['.repeat(10_000)}${']'.repeat(10_000)}}`],
    ['an unclosed flood of brackets', `{"x":${'['.repeat(200_000)}`],
  ])('%s', (_name, json) => {
    expect(() => decode(json)).toThrow(refused);
  });

  it('with the member and the reason, never its value', () => {
    expect(() => decode('{"MeshKey":"secret"}')).toThrow('MeshKey is of kind string: needs 64 hexadecimal digits');
    expect(() => decode('{"MeshKey":"secret"}')).not.toThrow('secret');
    expect(() => decode('{"x":1')).toThrow('no "," or "}" at byte 6 of 6');
  });
});

describe('the JSON reader', () => {
  it('accepts exactly what JSON.parse accepts of objects', () => {
    const texts = fc.oneof(
      fc.json({ maxDepth: 4 }).map((json) => `{"a":${json}}`),
      fc
        .json({ maxDepth: 3 })
        .chain((json) =>
          fc
            .tuple(fc.nat(json.length), fc.constantFrom('', ',', '"', '{', ']', '\\', '1', ' ', '\u0001', 'e', '-'))
            .map(([at, insert]) => `{"a":${json.slice(0, at)}${insert}${json.slice(at + 1)}}`),
        ),
    );
    const accepts = (parse: () => void) => {
      try {
        parse();
        return true;
      } catch {
        return false;
      }
    };
    fc.assert(
      fc.property(texts, (text) => {
        expect(accepts(() => readGoObject(Buffer.from(text), {}))).toBe(accepts(() => JSON.parse(text)));
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('ClientInfo on the wire', () => {
  const relay = PrivateKey.generate();
  const client = PrivateKey.generate();
  const info: ClientInfo = { meshKey: K1, version: 2, canAckPings: true, isProber: false, appName: 'x' };

  it('is written as Go writes it', () => {
    expect(encodeClientInfo({ ...info, isProber: true }).toString()).toBe(
      `{"meshKey":"${K1}","version":2,"CanAckPings":true,"IsProber":true,"AppName":"x"}`,
    );
    expect(encodeClientInfo(none).toString()).toBe('{"CanAckPings":false}');
  });

  it('reaches the relay, and its answer the client', () => {
    const box = new Box(relay.publicKey, client);
    const frame = sealClientInfo(info, client.publicKey, box);
    expect(frame[0]).toBe(FrameType.CLIENT_INFO);
    const opened = openClientInfo(frame.subarray(FRAME_HEADER_LENGTH), relay);
    expect(opened.key.equals(client.publicKey)).toBe(true);
    expect(opened.info).toEqual(info);
    for (const answer of [sealServerInfo(opened.key, relay), sealServerInfo(opened.key, relay, opened.box)]) {
      expect(answer[0]).toBe(FrameType.SERVER_INFO);
      const wanted = { version: 2, tokenBucketBytesPerSecond: 0, tokenBucketBytesBurst: 0 };
      expect(openServerInfo(answer.subarray(FRAME_HEADER_LENGTH), box)).toEqual(wanted);
    }
  });

  it('is refused when short, long, or of the zero key', () => {
    expect(() => openClientInfo(Buffer.alloc(55), relay)).toThrow('ClientInfo of 55 bytes, needs 56 to 262144');
    expect(() => openClientInfo(Buffer.alloc(262_145), relay)).toThrow(refused);
    expect(() => openClientInfo(Buffer.alloc(200), relay)).toThrow('ClientInfo with an all-zero key');
    const bodyWithoutBox = Buffer.concat([client.publicKey.bytes, Buffer.alloc(24)]);
    expect(() => openClientInfo(bodyWithoutBox, relay)).toThrow(expect.objectContaining({ code: 'ERR_DERP_BOX' }));
  });

  it('is refused when it was sealed for another relay', () => {
    const frame = sealClientInfo(info, client.publicKey, new Box(PrivateKey.generate().publicKey, client));
    expect(() => openClientInfo(frame.subarray(FRAME_HEADER_LENGTH), relay)).toThrow(
      expect.objectContaining({ code: 'ERR_DERP_BOX' }),
    );
  });
});

describe('ServerInfo', () => {
  it('carries a rate', () => {
    const info = { version: 2, tokenBucketBytesPerSecond: 1000, tokenBucketBytesBurst: 2000 };
    expect(encodeServerInfo(info).toString()).toBe(
      '{"version":2,"TokenBucketBytesPerSecond":1000,"TokenBucketBytesBurst":2000}',
    );
    expect(decodeServerInfo(encodeServerInfo(info))).toEqual(info);
  });

  it('is refused when it does not parse', () => {
    expect(() => decodeServerInfo(Buffer.from('{"version":"2"}'))).toThrow(
      expect.objectContaining({ code: 'ERR_DERP_BAD_HANDSHAKE' }),
    );
  });
});
