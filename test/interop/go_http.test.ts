/** The answers that `test/http_requests.test.ts` expects are derper's. `RECORD_DERPER=1` writes down what it answers now. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { makeCertificate } from '../support/certificates.js';
import {
  GO_DERPER_TIMEOUT,
  GO_DERPER_VERSION,
  goDerperMissing,
  newestDerperMissing,
  startGoDerper,
} from '../support/go_derper.js';
import { httpCases } from '../support/http_cases.js';
import { runCases } from '../support/http_exchange.js';
import { freePort } from '../support/ports.js';

const RECORD = fileURLToPath(new URL('./derper_http.txt', import.meta.url));

async function askDerper(newest: boolean): Promise<Map<string, string>> {
  const folder = mkdtempSync(join(tmpdir(), 'derplane-go-http-'));
  const { cert, keyPem } = await makeCertificate();
  writeFileSync(join(folder, 'derp.example.com.crt'), cert);
  writeFileSync(join(folder, 'derp.example.com.key'), keyPem);
  const port80 = await freePort();
  const plain = await startGoDerper({ newest });
  try {
    // Of a flag that comes twice the last counts.
    const tls = await startGoDerper({
      newest,
      tls: { hostname: 'derp.example.com', folder },
      args: ['-http-port', String(port80)],
    });
    try {
      return await runCases(httpCases(), { plain: plain.port, tls: tls.port, port80 });
    } finally {
      await tls.close();
    }
  } finally {
    await plain.close();
    rmSync(folder, { recursive: true });
  }
}

function textOf(results: Map<string, string>): string {
  return httpCases()
    .map(({ name }) => `${name}\t${results.get(name)}\n`)
    .join('');
}

describe.skipIf(newestDerperMissing())('derper 1.104.5', () => {
  test('answers as recorded', { timeout: GO_DERPER_TIMEOUT }, async () => {
    const text = textOf(await askDerper(true));
    if (process.env['RECORD_DERPER'] === '1') writeFileSync(RECORD, text);
    expect(text).toBe(readFileSync(RECORD, 'utf8'));
  });
});

describe.skipIf(goDerperMissing)(`derper ${GO_DERPER_VERSION}`, () => {
  test('answers alike, but for connections that go on after CONNECT', { timeout: GO_DERPER_TIMEOUT }, async () => {
    const withoutConnect = (text: string) => text.split('\n').filter((line) => !line.includes('CONNECT'));
    expect(withoutConnect(textOf(await askDerper(false)))).toEqual(withoutConnect(readFileSync(RECORD, 'utf8')));
  });
});
