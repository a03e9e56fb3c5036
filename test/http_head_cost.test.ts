/** What a head costs grows with its size, whatever a stranger puts into it. */
import { expect, test } from 'vitest';
import { parseHead } from '../dist/requests/head.js';

const SIZE = 8_000;
const headWith = (lines: string) => Buffer.from(`GET / HTTP/1.1\r\nHost: relay.test\r\nX: ${lines}\r\n\r\n`, 'latin1');

/** Milliseconds of the fastest of several runs: others on the machine only add to the rest. */
function cost(head: Buffer): number {
  return Math.min(
    ...Array.from({ length: 20 }, () => {
      const start = performance.now();
      parseHead(head);
      return performance.now() - start;
    }),
  );
}

const plain = headWith('b'.repeat(SIZE));

test.each([
  ['blanks within a value', headWith(`a${' '.repeat(SIZE)}b`)],
  ['blanks and tabs within a value', headWith(`a${' \t'.repeat(SIZE / 2)}b`)],
  ['blanks within a value of many lines', headWith(`a${' '.repeat(SIZE / 2)}b${'\r\n\tc'.repeat(SIZE / 8)}`)],
])('%s cost no multiple of what letters do', (_, head) => {
  // Where a run of blanks is looked at once for each of them, it is some hundred times as much.
  expect(cost(head) / cost(plain)).toBeLessThan(60);
});

test('blanks around a value are removed, and those within are kept', () => {
  const { headers } = parseHead(headWith(' \t a \t b\t \r\n\t c \t\r\n  \r\n d'));
  expect(headers.at(-1)).toEqual(['X', 'a \t b c d']);
});
