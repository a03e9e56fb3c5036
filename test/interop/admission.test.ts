/** What derper makes of the answers in `support/admission_cases.ts`, and of names of programs: derplane says the same. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { ask, type FakeServer, startServer } from '../support/admission.js';
import { type AdmissionCase, TAILSCALED_CASES, URL_CASES, URL_FAULTS } from '../support/admission_cases.js';
import { startDerplane } from '../support/derplane.js';
import { GO_DERPER_TIMEOUT, newestDerperMissing, startGoDerper } from '../support/go_derper.js';
import { RawClient } from '../support/raw_client.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-go-admission-'));
const socket = join(folder, 'socket');

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A relay under test. */
interface Relay {
  readonly port: number;
  log(): string;
  close(): Promise<unknown>;
}

const relays: Record<string, (args: string[]) => Promise<Relay>> = {
  'derper 1.104.5': (args) => startGoDerper({ newest: true, args }),
  derplane: async (args) => {
    const relay = await startDerplane([
      '-a=127.0.0.1:0',
      '-c',
      join(folder, 'key'),
      '-stun=false',
      '-log-level=debug',
      ...args,
    ]);
    const close = () => {
      relay.kill('SIGKILL');
      return relay.ended;
    };
    return { port: relay.port, log: relay.stderr, close };
  },
};

/** What the relay makes of a client: why it refused it, or that it admitted it. */
async function verdict(relay: Relay, appName = ''): Promise<string> {
  const client = await RawClient.dial(relay.port);
  const result = await ask(client, { appName });
  client.destroy();
  if (result === 'admitted') return result;
  const { hex } = client.publicKey;
  const refusal = () =>
    new RegExp(`(?:client nodekey:${hex} rejected: |receive client key: )(.*)`).exec(relay.log())?.[1];
  await expect.poll(refusal, { timeout: 10_000 }).toBeDefined();
  return refusal()!
    .replace(/ remote=\S+ failure=\w+$/, '') // derplane's log has them behind each line
    .replace(`nodekey:${hex}`, 'KEY');
}

/** Holds a relay to all cases in turn. */
async function holdTo(
  relay: Relay,
  serve: (answer: AdmissionCase['answer']) => void,
  cases: readonly AdmissionCase[],
): Promise<void> {
  for (const { name, answer, refusal } of cases) {
    serve(answer);
    expect([name, await verdict(relay)]).toEqual([name, refusal ?? 'admitted']);
  }
}

describe.skipIf(newestDerperMissing())('admission', () => {
  describe.each(Object.entries(relays))('of %s', (_, start) => {
    async function withRelay(
      args: string[],
      body: (relay: Relay) => Promise<void>,
      server?: FakeServer,
    ): Promise<void> {
      const relay = await start(args);
      try {
        await body(relay);
      } finally {
        await relay.close();
        await server?.close();
      }
    }

    test('by tailscaled', { timeout: GO_DERPER_TIMEOUT }, async () => {
      let answer: AdmissionCase['answer'] = () => undefined;
      const server = await startServer((request, response) => answer(request, response), socket);
      const args = ['-verify-clients', '-socket', socket];
      await withRelay(
        args,
        (relay) =>
          holdTo(
            relay,
            (next) => {
              answer = next;
            },
            TAILSCALED_CASES,
          ),
        server,
      );
    });

    test('by a tailscaled that is not there', { timeout: GO_DERPER_TIMEOUT }, async () => {
      const missing = join(folder, 'missing');
      await withRelay(['-verify-clients', '-socket', missing], async (relay) => {
        expect(await verdict(relay)).toMatch(
          /^failed to query local tailscaled status for KEY: Failed to connect to local Tailscale daemon for \/localapi\/v0\/whois; not running\? Error: /,
        );
      });
    });

    test('by a URL', { timeout: GO_DERPER_TIMEOUT }, async () => {
      let answer: AdmissionCase['answer'] = () => undefined;
      const server = await startServer((request, response) => answer(request, response));
      const args = ['-verify-client-url', `${server.url}/x?y=1`];
      await withRelay(
        args,
        async (relay) => {
          await holdTo(
            relay,
            (next) => {
              answer = next;
            },
            URL_CASES,
          );
          for (const fault of URL_FAULTS) {
            answer = fault.answer;
            expect([fault.name, await verdict(relay)]).not.toEqual([fault.name, 'admitted']);
          }
          expect(relay.log()).not.toContain('unreachable; allowing');
          const { line, body } = server.requests[0]!;
          expect(line).toBe('POST /x?y=1');
          expect(body).toMatch(/^\{"NodePublic":"nodekey:[0-9a-f]{64}","Source":"127\.0\.0\.1"\}$/);
          for (const status of [301, 302, 303, 307, 308]) {
            const from = server.requests.length;
            answer = (request, response) => {
              if (request.url === '/to') response.end('{"Allow":true}');
              else response.writeHead(status, { Location: '/to' }).end();
            };
            expect(await verdict(relay)).toBe('admitted');
            const second = server.requests[from + 1]!;
            expect([status, second.line, second.body !== '']).toEqual(
              status < 304 ? [status, 'GET /to', false] : [status, 'POST /to', true],
            );
          }
          const from = server.requests.length;
          answer = (_, response) => void response.writeHead(307, { Location: '/loop' }).end();
          expect(await verdict(relay)).toBe('admitted');
          expect(server.requests.length - from).toBe(10);
          expect(relay.log()).toMatch(/admission controller unreachable; allowing client nodekey:/);
        },
        server,
      );
    });

    test('by a URL that hangs, fail-open and fail-closed', { timeout: GO_DERPER_TIMEOUT }, async () => {
      const server = await startServer(() => undefined);
      const args = ['-verify-client-url', server.url];
      await withRelay(args, async (relay) => expect(await verdict(relay)).toBe('admitted'));
      const closed = [...args, '-verify-client-url-fail-open=false'];
      await withRelay(closed, async (relay) => expect(await verdict(relay)).not.toBe('admitted'), server);
    });

    test('by names of programs', { timeout: GO_DERPER_TIMEOUT }, async () => {
      await withRelay(['-disallow-app-names', 'a, b,'], async (relay) => {
        const verdicts: [string, string][] = [];
        for (const appName of ['a', 'b', ' b', '', 'A', 'x'.repeat(33)])
          verdicts.push([appName, await verdict(relay, appName)]);
        expect(verdicts).toEqual([
          ['a', 'disallowed app name "a"'],
          ['b', 'admitted'],
          [' b', 'disallowed app name " b"'],
          ['', 'disallowed app name ""'],
          ['A', 'admitted'],
          ['x'.repeat(33), `invalid AppName "${'x'.repeat(33)}"`],
        ]);
      });
    });
  });
});
