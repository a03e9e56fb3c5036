/** Heads and bodies of requests, for any bytes at all: nothing malformed passes, and nothing but a refusal is thrown. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { derpRequest } from '../dist/handshake/request.js';
import { BodySkipper, MAX_SKIPPED_BODY, type SkipState } from '../dist/requests/body.js';
import { findHeadEnd, parseHead, type RequestHead } from '../dist/requests/head.js';
import { RefusedRequest, refusalAnswer } from '../dist/requests/refusal.js';

const UPGRADE = [
  'GET /derp HTTP/1.1',
  'Host: relay.test',
  'Connection: Upgrade',
  'Upgrade: DERP',
  'Derp-Fast-Start: 1',
];

const bytesOf = (lines: readonly string[]) => Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');

/** The head, or `undefined` when it was refused; any other error fails the test. */
function read(bytes: Buffer): RequestHead | undefined {
  try {
    return parseHead(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(RefusedRequest);
    expect(refusalAnswer((error as RefusedRequest).refusal)).toMatch(/^HTTP\/1\.1 (?:400|417|431|501|505) /);
    return undefined;
  }
}

/** A line that must not be in any request, and where it stands among the headers. */
const faultyLine = fc.oneof(
  fc.constantFrom(
    'Host: other.test',
    'host:relay.test',
    'No-Colon',
    ': x',
    'X Y: z',
    'X\t: z',
    'Transfer-Encoding: gzip',
  ),
  fc.constantFrom(
    'Transfer-Encoding: chunked\r\nContent-Length: 0',
    'Content-Length: -1',
    'Content-Length: +1',
    'Content-Length: 1, 1',
  ),
  fc.constantFrom(
    'Content-Length: 1\r\nContent-Length: 2',
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked',
    'Expect: x',
  ),
  fc
    .tuple(fc.constantFrom('X', 'Upgrade', 'Derp-Fast-Start'), fc.integer({ min: 0, max: 31 }), fc.string())
    .filter(([, code]) => code !== 9 && code !== 10)
    .map(([name, code, rest]) => `${name}: a${String.fromCharCode(code)}b${rest.replaceAll(/[^ -~]/g, '')}`),
  fc.stringMatching(/^[!-9;-~]{0,20}$/).map((name) => `${name}(: x`),
);

const faultyRequestLine = fc.oneof(
  fc.constantFrom(
    'GET /derp',
    'GET /derp HTTP/2.0',
    'GET /derp HTTP/0.9',
    'GET /derp http/1.1',
    'GET /derp HTTP/1.10',
    '',
  ),
  fc.constantFrom(
    'GET  /derp HTTP/1.1',
    ' GET /derp HTTP/1.1',
    'GET /derp HTTP/1.1 ',
    'G(T /derp HTTP/1.1',
    'GET derp HTTP/1.1',
  ),
  fc.constantFrom(
    'GET /de rp HTTP/1.1',
    'GET /derp\t HTTP/1.1',
    'GET /derp\x7f HTTP/1.1',
    'GET /derp%z HTTP/1.1',
    'GET http://a b/derp HTTP/1.1',
  ),
);

describe('a request head', () => {
  test('that is right passes, and upgrades, whatever else it holds', () => {
    const name = fc.stringMatching(/^X-[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}$/);
    const value = fc.stringMatching(/^[ -~]{0,40}$/);
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value), { maxLength: 20 }), fc.constantFrom('\r\n', '\n'), (headers, end) => {
        const lines = [...UPGRADE, ...headers.map(([key, text]) => `${key}: ${text}`)];
        const head = read(Buffer.from(lines.join(end) + end + end, 'latin1'));
        expect(derpRequest(head!)).toEqual({ upgrade: true, fastStart: true, notIdeal: false });
        expect(head!.headers.slice(4).map(([, text]) => text)).toEqual(headers.map(([, text]) => text.trim()));
      }),
    );
  });

  test('with one fault is refused, wherever it stands', () => {
    fc.assert(
      fc.property(faultyLine, fc.integer({ min: 1, max: UPGRADE.length }), (line, at) => {
        expect(read(bytesOf(UPGRADE.toSpliced(at, 0, ...line.split('\r\n'))))).toBeUndefined();
      }),
    );
    fc.assert(
      fc.property(faultyRequestLine, (line) => {
        expect(read(bytesOf(UPGRADE.with(0, line)))).toBeUndefined();
      }),
    );
  });

  test('with any bytes changed is refused, or holds nothing that two readers could take differently', () => {
    const change = fc.record({
      at: fc.nat(200),
      remove: fc.nat(3),
      insert: fc.oneof(
        fc.uint8Array({ maxLength: 3 }),
        fc.constantFrom('\r\n', '\n', ' ', '\t', ':', '\r', 'Host: y\r\n').map((text) => Buffer.from(text)),
      ),
    });
    const framing = fc.constantFrom(
      [],
      ['Content-Length: 5'],
      ['Transfer-Encoding: chunked'],
      ['Expect: 100-continue'],
    );
    fc.assert(
      fc.property(framing, fc.array(change, { minLength: 1, maxLength: 4 }), (lines, changes) => {
        let bytes = bytesOf([...UPGRADE, ...lines]);
        for (const { at, remove, insert } of changes) {
          const place = at % bytes.length;
          bytes = Buffer.concat([bytes.subarray(0, place), insert, bytes.subarray(place + remove)]);
        }
        const end = findHeadEnd(bytes, 0);
        if (end === -1) return;
        const head = read(bytes.subarray(0, end));
        if (head === undefined) return;
        const named = (name: string) => head.headers.filter(([other]) => other.toLowerCase() === name);
        expect(bytes.subarray(0, end).toString('latin1')).toMatch(/^[\t\r\n -~\x80-\xff]*$/);
        expect(named('host').length).toBeLessThan(2);
        expect(Math.min(named('content-length').length, named('transfer-encoding').length)).toBe(0);
        expect(head.major).toBe(1);
        derpRequest(head);
      }),
      { numRuns: 5_000 },
    );
  });

  test('may be any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void read(Buffer.from(bytes))),
      { numRuns: 2_000 },
    );
  });
});

/** Feeds bytes in pieces, as a connection does; resolves with what is left, and the state. */
function skip(
  framing: { chunked: boolean; length: number },
  bytes: Buffer,
  cuts: number[],
): { rest: Buffer; state: SkipState } {
  const skipper = new BodySkipper(framing);
  const ends = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort((a, b) => a - b);
  let from = 0;
  let held = Buffer.alloc(0);
  for (const end of ends) {
    held = Buffer.concat([held, bytes.subarray(from, end)]);
    held = held.subarray(skipper.feed(held));
    from = end;
  }
  return { rest: held, state: skipper.state };
}

describe('a body', () => {
  const NEXT = Buffer.from('GET / HTTP/1.1\r\n');
  const cuts = fc.array(fc.nat(), { maxLength: 12 });

  test('ends where its length or its last chunk says, however it comes', () => {
    fc.assert(
      fc.property(fc.nat(3_000), cuts, (length, at) => {
        const bytes = Buffer.concat([Buffer.alloc(length, '\r'), NEXT]);
        expect(skip({ chunked: false, length }, bytes, at)).toEqual({ rest: NEXT, state: 'done' });
      }),
    );
    const chunk = fc
      .tuple(fc.integer({ min: 1, max: 500 }), fc.constantFrom('', ' ', ';a', ';a=b'))
      .map(([size, extension]) => `${size.toString(16)}${extension}\r\n${'\n'.repeat(size)}\r\n`);
    fc.assert(
      fc.property(fc.array(chunk, { maxLength: 10 }), fc.constantFrom('', 'X: y\r\n'), cuts, (chunks, trailer, at) => {
        const bytes = Buffer.concat([Buffer.from(`${chunks.join('')}0\r\n${trailer}\r\n`), NEXT]);
        expect(skip({ chunked: true, length: 0 }, bytes, at)).toEqual({ rest: NEXT, state: 'done' });
      }),
    );
  });

  test.each([
    ['a size that is no number', 'g\r\n'],
    ['a sign', '+5\r\nhello\r\n0\r\n\r\n'],
    ['a prefix', '0x5\r\nhello\r\n0\r\n\r\n'],
    ['no size', '\r\nhello\r\n0\r\n\r\n'],
    ['a size of 17 digits', '00000000000000005\r\nhello\r\n0\r\n\r\n'],
    ['a bare LF', '5\nhello\r\n0\r\n\r\n'],
    ['a CR in an extension', '5;a\rb\r\nhello\r\n0\r\n\r\n'],
    ['more data than its size', '5\r\nhelloXX\r\n0\r\n\r\n'],
    ['a trailer without a colon', '0\r\nX\r\n\r\n'],
    ['a line without end', `5;${'x'.repeat(5_000)}`],
    ['more between chunks than data', `${'1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n'.repeat(500)}0\r\n\r\n`],
    ['more data than is passed over', `${MAX_SKIPPED_BODY.toString(16)}\r\n`],
  ])('with %s ends its connection', (_, text) => {
    expect(skip({ chunked: true, length: 0 }, Buffer.from(text), []).state).toBe('bad');
  });

  test('of any bytes ends somewhere or not, the same however they come', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), cuts, (noise, at) => {
        const bytes = Buffer.concat([Buffer.from('3\r\nabc'), noise, Buffer.from('\r\n0\r\n\r\n')]);
        const whole = skip({ chunked: true, length: 0 }, bytes, []);
        const pieces = skip({ chunked: true, length: 0 }, bytes, at);
        expect(pieces.state).toBe(whole.state);
        if (whole.state === 'done') expect(pieces.rest).toEqual(whole.rest);
      }),
      { numRuns: 2_000 },
    );
  });
});
