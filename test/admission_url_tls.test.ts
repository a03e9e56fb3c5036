/** An admission server behind TLS: which certificates are trusted, and what a wrong one means. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrivateKey } from 'derplane';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { UrlAdmission } from '../dist/admission/url.js';
import { makeCertificate } from './support/certificates.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-url-tls-'));
const roots = join(folder, 'roots.pem');
let server: Server;
let port: number;

beforeAll(async () => {
  const { cert, keyPem: key } = await makeCertificate({ names: ['localhost'] });
  writeFileSync(roots, cert);
  server = createServer({ cert, key }, (_, response) => response.end('{"Allow":true}')).listen(0, 'localhost');
  await once(server, 'listening');
  port = (server.address() as AddressInfo).port;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(() => () => vi.unstubAllEnvs());

async function decide(url: string, failOpen = false) {
  const source = new UrlAdmission({ url, failOpen, cache: 0, onFailOpen: () => undefined });
  const request = {
    key: PrivateKey.generate().publicKey,
    address: '127.0.0.1:1',
    appName: '',
    version: 2,
    isProber: false,
  };
  return source.admit(request, new AbortController().signal).finally(() => source.close());
}

test.each(['https', 'HTTPS'])('is trusted by the roots of SSL_CERT_FILE, the scheme written as %s', async (scheme) => {
  vi.stubEnv('SSL_CERT_FILE', roots);
  expect(await decide(`${scheme}://localhost:${port}/`)).toEqual({ allow: true });
});

test('of an unknown authority is unreachable', async () => {
  await expect(decide(`https://localhost:${port}/`)).rejects.toThrow(/unreachable: .*certificate/);
  expect(await decide(`https://localhost:${port}/`, true)).toEqual({ allow: true });
});

test('of another name is unreachable', async () => {
  vi.stubEnv('SSL_CERT_FILE', roots);
  await expect(decide(`https://127.0.0.1:${port}/`)).rejects.toThrow(/unreachable: .*127\.0\.0\.1/);
});
