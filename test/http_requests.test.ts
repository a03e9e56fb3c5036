/** Requests are taken and refused as derper does it, on every listener; `test/interop/go_http.test.ts` asks derper itself. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeCertificate } from './support/certificates.js';
import { type RelayProcess, startDerplane } from './support/derplane.js';
import { httpCases } from './support/http_cases.js';
import { runCases } from './support/http_exchange.js';

const REFUSED = '400 text/plain "400 Bad Request"';

/** Where we mean to differ from derper, and what we answer. All are in docs/operations.md. */
const DIFFERENCES: [name: RegExp, ours: string | ((derper: string) => string)][] = [
  // Two ways to tell where a body ends are how one request is hidden in another.
  [/^(?:upgrade|page|TLS page|port 80): (?:TE\+CL|CL\+TE|TE\+CL 1\.0)$/, REFUSED],
  [/: head 9k$/, '431 text/plain "431 Request Header Fields Too Large"'],
  // What follows the head of an HTTP/1.0 request with an encoding may be its body.
  [/^(?:page|TLS page|port 80): TE chunked 1\.0 keep-alive$/, (derper) => derper.replace(/, 400 .*/, '')],
  // CONNECT asks for a tunnel to somewhere else.
  [/^upgrade: CONNECT path$/, '426 text/plain "DERP requires connection upgrade\\n"'],
  // derper puts the whole target behind the host.
  [/^port80 (?:GET|HEAD) http:\/\/other\/x\?y$/, (derper) => derper.replace('https://otherhttp://', 'https://')],
  [
    /^port80 (?:GET|HEAD) http:\/\/other:99\/$/,
    (derper) => derper.replace('https://other:99http://other:99/', 'https://other:99/debug/'),
  ],
  // The same URL.
  [/^port 80: high byte in path$/, (derper) => derper.replace('%e9', '%E9')],
  // What could end a link in a page is escaped.
  [/^port80 (?:GET|HEAD) \/%C3%A9\?"<>$/, (derper) => derper.replace('?"<>', '?%22%3C%3E')],
  [/^port80 (?:GET|HEAD) \/\\evil$/, (derper) => derper.replace('\\', '%5C')],
];

const folder = mkdtempSync(join(tmpdir(), 'derplane-http-'));
const relays: RelayProcess[] = [];
let ours: Map<string, string>;

beforeAll(async () => {
  const { cert, keyPem } = await makeCertificate();
  writeFileSync(join(folder, 'derp.example.com.crt'), cert);
  writeFileSync(join(folder, 'derp.example.com.key'), keyPem);
  const base = ['-a', '127.0.0.1:0', '-c', join(folder, 'derper.key'), '-shards', '1', '-stun=false'];
  const tlsFlags = ['-certmode', 'manual', '-certdir', folder, '-hostname', 'derp.example.com', '-http-port', '0'];
  for (const flags of [[], tlsFlags]) relays.push(await startDerplane([...base, ...flags]));
  const [plain, tls] = relays as [RelayProcess, RelayProcess];
  const port80 = Number((await tls.line(/derper: serving plain HTTP on \S+/)).match(/:(\d+)$/)![1]);
  ours = await runCases(httpCases(), { plain: plain.port, tls: tls.port, port80 });
}, 120_000);

afterAll(async () => {
  for (const relay of relays) {
    relay.kill('SIGKILL');
    await relay.ended;
  }
  rmSync(folder, { recursive: true });
});

describe('what derper answers, we answer', () => {
  const recorded = readFileSync(new URL('./interop/derper_http.txt', import.meta.url), 'utf8')
    .trimEnd()
    .split('\n');
  const derper = new Map(recorded.map((line) => line.split('\t') as [string, string]));

  test('every case was recorded', () => {
    expect([...derper.keys()].sort()).toEqual(
      httpCases()
        .map(({ name }) => name)
        .sort(),
    );
  });

  test.each([...derper.keys()])('%s', (name) => {
    const theirs = derper.get(name)!;
    const difference = DIFFERENCES.find(([pattern]) => pattern.test(name))?.[1];
    const wanted = typeof difference === 'function' ? difference(theirs) : (difference ?? theirs);
    expect(ours.get(name)).toBe(wanted);
    if (difference !== undefined) expect(wanted, 'no difference any more').not.toBe(theirs);
  });
});
