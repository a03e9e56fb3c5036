import { once } from 'node:events';
import { get } from 'node:https';
import { connect } from 'node:net';
import { createPageServer, PrivateKey, RelayClient, Server, TlsContext } from 'derplane';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readFigures } from '../dist/http/debug_vars.js';
import { metricsText } from '../dist/http/metrics_text.js';
import { makeCertificate } from './support/certificates.js';
import { RawClient, upgradeHead } from './support/raw_client.js';

let server: Server;
let port: number;
let ca: string;

beforeAll(async () => {
  const { cert, keyPem: key } = await makeCertificate({ names: ['127.0.0.1'] });
  ca = cert;
  const tls = new TlsContext();
  tls.set('*', [{ cert, key }]);
  server = new Server(PrivateKey.generate(), { shards: 1 });
  ({ port } = await server.listen({ host: '127.0.0.1', port: 0, tls, httpServer: createPageServer() }));
});
afterAll(() => server.close());

function request(maxVersion: 'TLSv1.2' | 'TLSv1.3'): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path: '/', ca, maxVersion, agent: false }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode));
    }).on('error', reject);
  });
}

async function varz(): Promise<string[]> {
  const text = await metricsText(readFigures({ relay: server, version: '0' }));
  return text.split('\n').filter((line) => /^(derper_tls|tls_listener)/.test(line));
}

test('requests, upgrades, connections and accepts over TLS are counted by version', async () => {
  expect(await request('TLSv1.2')).toBe(200);
  expect(await request('TLSv1.3')).toBe(200);
  const client = new RelayClient(PrivateKey.generate(), `https://127.0.0.1:${port}/derp`, { ca });
  await client.connect();
  await expect
    .poll(varz, { timeout: 10_000 })
    .toEqual([
      'derper_tls_active_version{version="1.2"} 0',
      'derper_tls_active_version{version="1.3"} 1',
      'derper_tls_request_version{version="1.2"} 1',
      'derper_tls_request_version{version="1.3"} 2',
      'tls_listener_accepted_connections 3',
      'tls_listener_rejected_connections 0',
    ]);
  client.close();
  await expect.poll(varz, { timeout: 10_000 }).toContain('derper_tls_active_version{version="1.3"} 0');
});

test('a client is counted once it is sent the key, and active from then on, as in derper', async () => {
  const figures = () => {
    const { accepts, ...vars } = server.expVar();
    return { accepts, active: vars['gauge_derper_tls_active_version'], total: vars['derper_tls_request_version'] };
  };
  const before = figures();
  const client = await RawClient.connect({ port, tls: { ca } });
  await client.write(upgradeHead());
  await client.readHead();
  await client.readServerKey();
  expect(figures()).toEqual({
    accepts: Number(before.accepts) + 1,
    active: { '1.2': 0, '1.3': 1 },
    total: { '1.2': 1, '1.3': 3 },
  });
  client.destroy();
  await expect.poll(() => figures().active).toEqual({ '1.2': 0, '1.3': 0 });
  expect(figures().accepts).toBe(Number(before.accepts) + 1);
});

test('connections beyond the limit of handshakes are counted as rejected', async () => {
  const full = new Server(PrivateKey.generate(), { shards: 1, handshake: { maxPending: 1 } });
  const listener = await full.listen({ host: '127.0.0.1', port: 0, tls: new TlsContext() });
  const [first, second] = [connect(listener.port, '127.0.0.1'), connect(listener.port, '127.0.0.1')];
  // Whichever was accepted second finds no place.
  await Promise.race([first, second].map((socket) => once(socket.resume(), 'close')));
  const { tls_listener } = full.expVar();
  expect(tls_listener).toEqual({ counter_accepted_connections: 1, counter_rejected_connections: 1 });
  first.destroy();
  second.destroy();
  await full.close();
});

test('a relay without TLS shows none of it', async () => {
  const plain = new Server(PrivateKey.generate(), { shards: 1 });
  const text = await metricsText(readFigures({ relay: plain, version: '0' }));
  expect(text).not.toMatch(/^(derper_tls|tls_listener)/m);
  await plain.close();
});
