/** Pages over TLS, for the clients that people have. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { RawClient } from './support/raw_client.js';
import { type TestRelay, withRelay } from './support/relay.js';

const relayOverTls = (body: (relay: TestRelay) => Promise<void>) => withRelay({ shards: 2, tls: true }, body);

interface Answer {
  status: number | undefined;
  body: string;
  reused: boolean;
}

function get(relay: TestRelay, agent: Agent, path: string, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port: relay.port, path, method, agent }, (response) => {
      text(response).then((body) => resolve({ status: response.statusCode, body, reused: asked.reusedSocket }), reject);
    });
    asked.on('error', reject).end();
  });
}

describe('pages over TLS', () => {
  it('come to Node’s client, several over one connection', () =>
    relayOverTls(async (relay) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: inject('relayCertificate').cert });
      const answers = [];
      for (const path of ['/generate_204', '/robots.txt', '/derp/probe', '/derp', '/']) {
        answers.push(await get(relay, agent, path));
      }
      expect(answers.map(({ status }) => status)).toEqual([204, 200, 200, 426, 200]);
      expect(answers[1]?.body).toBe('User-agent: *\nDisallow: /\n');
      expect(answers.slice(1, 4).every(({ reused }) => reused)).toBe(true);
      agent.destroy();
    }));

  it('come when the client’s bytes do, one by one', () =>
    relayOverTls(async (relay) => {
      const client = await relay.dial();
      for (const byte of Buffer.from('GET /robots.txt HTTP/1.1\r\nHost: relay.test\r\n\r\n')) {
        await client.write(Buffer.of(byte));
      }
      expect(await client.readHead()).toMatch(/^HTTP\/1\.1 200 /);
    }));

  it('may be followed by an upgrade to DERP on the same connection, its first bytes with it', () =>
    relayOverTls(async (relay) => {
      const client = await relay.dial();
      for (let n = 0; n < 2; n++) {
        await client.write(Buffer.from('GET /derp/probe HTTP/1.1\r\nHost: relay.test\r\n\r\n'));
        expect(await client.readHead()).toMatch(/^HTTP\/1\.1 200 /);
      }
      await (await client.open()).settle();
      const other = await relay.connect();
      await other.send(client.publicKey, Buffer.alloc(60_000, 7));
      expect((await client.expectPacket()).packet).toEqual(Buffer.alloc(60_000, 7));
      await client.send(other.publicKey, Buffer.alloc(60_000, 8));
      expect((await other.expectPacket()).packet).toEqual(Buffer.alloc(60_000, 8));
    }));

  it('end with close_notify where the connection ends with them', () =>
    relayOverTls(async (relay) => {
      for (const head of ['Connection: close', 'Upgrade: h2c\r\nConnection: Upgrade, close']) {
        const stream: TLSSocket = connectTls({ port: relay.port, host: '127.0.0.1', rejectUnauthorized: false });
        const client = new RawClient(stream);
        await client.write(Buffer.from(`GET /derp HTTP/1.1\r\nHost: relay.test\r\n${head}\r\n\r\n`));
        expect((await client.readToEnd()).toString()).toMatch(/^HTTP\/1\.1 426 /);
      }
    }));

  it('do not end the relay when their client goes away at any moment', () =>
    relayOverTls(async (relay) => {
      const ways: ((client: RawClient) => void)[] = [
        (client) => client.reset(),
        (client) => client.destroy(),
        (client) => void client.stream.end(),
      ];
      for (const path of ['/', '/derp', '/nothing']) {
        for (const leave of ways) {
          const client = await relay.dial();
          client.push(Buffer.from(`GET ${path} HTTP/1.1\r\nHost: relay.test\r\n\r\n`));
          leave(client);
          await client.expectClose();
        }
      }
      await (await relay.connect()).settle();
    }));

  describe('to curl', () => {
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'derplane-curl-'));
      await writeFile(join(folder, 'ca'), inject('relayCertificate').cert);
    });
    afterAll(() => rm(folder, { recursive: true, force: true }));

    it.each(['--tlsv1.3', '--tls-max 1.2'])('come over one connection with %s', (version) =>
      relayOverTls(async (relay) => {
        const url = `https://127.0.0.1:${relay.port}`;
        const { stdout } = await promisify(execFile)('curl', [
          ...['-sS', '--noproxy', '*', '--cacert', join(folder, 'ca'), ...version.split(' ')],
          ...['-w', '%{http_code} %{num_connects}\n', `${url}/derp/probe`, `${url}/generate_204`],
        ]);
        expect(stdout).toBe('200 1\n204 0\n');
      }),
    );
  });
});
