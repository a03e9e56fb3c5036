/** Admission through a tailscaled: its LocalAPI is played here; `test/e2e/admission.test.ts` asks a real one. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrivateKey } from 'derplane';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { TailscaledAdmission } from '../dist/admission/tailscaled.js';
import { ask, askRelay, type FakeServer, startServer } from './support/admission.js';
import { type AdmissionCase, TAILSCALED_CASES } from './support/admission_cases.js';
import { LogWatch } from './support/log_watch.js';
import { withRelay } from './support/relay.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-tailscaled-'));
const socket = join(folder, 'socket');
let server: FakeServer | undefined;

afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(async () => {
  await server?.close();
  server = undefined;
});

const NODE = '{"Node":{},"UserProfile":{}}';
const self = PrivateKey.generate().publicKey;
const STATUS = `{"Self":{"ID":"n1","PublicKey":"${self}"},"Peer":null}`;

/** A tailscaled that knows its own node, as the consistency check of every test asks, and answers the rest as told. */
async function serve(answer: AdmissionCase['answer']): Promise<FakeServer> {
  server = await startServer((request, response) => {
    if (request.url === '/localapi/v0/status?peers=false') response.end(STATUS);
    else if (request.url!.endsWith(self.hex)) response.end(NODE);
    else answer(request, response);
  }, socket);
  return server;
}

test('is asked for the key of the client, as Tailscale’s own client asks', async () => {
  await serve((_, response) => void response.end(NODE));
  await withRelay({ shards: 1, admission: { tailscaledSocket: socket } }, async (relay) => {
    const client = await relay.dial();
    expect(await ask(client)).toBe('admitted');
    const { line, headers } = server!.requests[0]!;
    expect(line).toBe(`GET /localapi/v0/whois?addr=nodekey%3A${client.publicKey.hex}`);
    expect(headers).toMatchObject({ host: 'local-tailscaled.sock', 'tailscale-cap': '148' });
    expect(headers).not.toHaveProperty('origin');
  });
});

describe('an answer', () => {
  test.each(TAILSCALED_CASES)('$name', async ({ answer, refusal }) => {
    await serve(answer);
    const logger = new LogWatch();
    await withRelay({ shards: 1, logger, admission: { tailscaledSocket: socket } }, async (relay) => {
      const client = await relay.dial();
      expect(await ask(client)).toBe(refusal === undefined ? 'admitted' : 'refused');
      if (refusal === undefined) return;
      const line = await logger.line(/ rejected: /);
      expect(line.split(' rejected: ')[1]).toBe(refusal.replace('KEY', String(client.publicKey)));
      expect(relay.counter('admission_refused', 'tailscaled')).toBe(1);
    });
  });

  test.each(['', 'yes', '[]', '{"Node":'])('%j of status 200 is none', async (body) => {
    await serve((_, response) => void response.end(body));
    await withRelay({ shards: 1, admission: { tailscaledSocket: socket } }, async (relay) => {
      expect(await askRelay(relay)).toBe('refused');
    });
  });

  test('that never comes, or never ends, refuses in time', async () => {
    const key = PrivateKey.generate().publicKey;
    const request = { key, address: '', appName: '', version: 2, isProber: false };
    const answers = [
      () => undefined,
      (_: unknown, response: { write(text: string): unknown }) => void response.write('{'),
    ];
    for (const answer of answers) {
      server = await startServer(answer, socket);
      const source = new TailscaledAdmission(socket, 200);
      expect(await source.admit(request, new AbortController().signal)).toEqual({
        allow: false,
        text: `failed to query local tailscaled status for ${key}: tailscaled does not answer /localapi/v0/whois within 0.2 s`,
      });
      await server.close();
    }
    server = await startServer((_, response) => response.end(Buffer.alloc(2 << 20, ' ')), socket);
    const { text } = await new TailscaledAdmission(socket).admit(request, new AbortController().signal);
    expect(text).toContain('more than 1048576 bytes');
  });
});

test('without a tailscaled nobody is admitted, until there is one', async () => {
  const logger = new LogWatch();
  await withRelay({ shards: 1, logger, admission: { tailscaledSocket: socket } }, async (relay) => {
    expect(await askRelay(relay)).toBe('refused');
    await logger.line(
      /: Failed to connect to local Tailscale daemon for \/localapi\/v0\/whois; not running\? Error: .*ENOENT/,
    );
    await serve((_, response) => void response.end(NODE));
    expect(await askRelay(relay)).toBe('admitted');
  });
});

describe('the consistency check', () => {
  test.each<[string, string, string | undefined, number, string | undefined]>([
    ['is well when this machine’s own node is admitted', STATUS, NODE, 200, undefined],
    ['says that tailscaled tells no status', 'broken', NODE, 200, 'localClient.Status: '],
    [
      'says that tailscaled is not logged in',
      '{"Self":{"PublicKey":null}}',
      NODE,
      200,
      'localClient.Status: tailscaled tells no Self.PublicKey',
    ],
    [
      'says that the own node is unknown',
      STATUS,
      'no match',
      404,
      `verifyClient for self nodekey: peer ${self} not authorized`,
    ],
  ])('%s', async (_, statusBody, whois, code, violation) => {
    server = await startServer((request, response) => {
      if (request.url === '/localapi/v0/status?peers=false') response.end(statusBody);
      else response.writeHead(code).end(whois);
    }, socket);
    const refused: number[] = [];
    const running = withRelay({ shards: 1, admission: { tailscaledSocket: socket } }, async (relay) => {
      const check = relay.server.consistencyCheck();
      if (violation === undefined) await check;
      else await expect(check).rejects.toThrow(violation);
      refused.push(relay.counter('admission_refused', 'tailscaled'));
    });
    // The rig's own check fails in the same way.
    if (violation === undefined) await running;
    else await expect(running).rejects.toThrow(violation);
    expect(refused).toEqual([0]);
  });
});
