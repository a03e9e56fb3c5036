/** Who may use a relay: programs' names, a hook, several sources together; told over the wire, in the log and in figures. */
import { type AdmissionRequest, type AdmitDecision, PrivateKey, Server } from 'derplane';
import { describe, expect, test } from 'vitest';
import { ask, askRelay } from './support/admission.js';
import { LogWatch } from './support/log_watch.js';
import { clientInfoBody, Frame, frame, RawClient, upgradeHead } from './support/raw_client.js';
import { withRelay } from './support/relay.js';

const MESH_KEY = 'ab'.repeat(32);

test('without admission anyone is let in, and the figure says so', async () => {
  await withRelay({ shards: 1 }, async (relay) => {
    expect(await askRelay(relay, { appName: 'any' })).toBe('admitted');
    expect(relay.server.admission).toBe(undefined);
    expect(relay.counter('gauge_open_to_anyone')).toBe(1);
  });
});

describe('the name of a program', () => {
  test.each(['x'.repeat(33), 'tab\t', 'ä', '\u007f'])('%j is refused, whoever has it', async (appName) => {
    const logger = new LogWatch();
    await withRelay({ shards: 1, logger, logClients: true, mesh: { key: MESH_KEY } }, async (relay) => {
      expect(await askRelay(relay, { appName })).toBe('refused');
      expect(await askRelay(relay, { appName, meshKey: MESH_KEY })).toBe('refused');
      await logger.line(/derp: 127\.0\.0\.1:\d+: receive client key: invalid AppName "/, 2);
      expect(relay.counter('handshakes_failed', 'bad_client_info')).toBe(2);
    });
  });

  test.each(['x'.repeat(32), ' ~', ''])('%j is taken', async (appName) => {
    await withRelay({ shards: 1 }, async (relay) => {
      expect(await askRelay(relay, { appName })).toBe('admitted');
    });
  });

  test('that is disallowed is refused, exactly, but for mesh peers', async () => {
    const logger = new LogWatch();
    const admission = { disallowAppNames: ['bad', ' b '] };
    await withRelay({ shards: 1, logger, admission, mesh: { key: MESH_KEY } }, async (relay) => {
      const bad = await relay.dial();
      expect(await ask(bad, { appName: 'bad' })).toBe('refused');
      await logger.line(
        new RegExp(`^INFO derp: 127\\.0\\.0\\.1:\\d+: client ${bad.publicKey} rejected: disallowed app name "bad"$`),
      );
      expect(await askRelay(relay, { appName: ' b ' })).toBe('refused');
      for (const appName of ['Bad', 'b', '']) expect(await askRelay(relay, { appName })).toBe('admitted');
      expect(await askRelay(relay, { appName: 'bad', meshKey: MESH_KEY })).toBe('admitted');
      // A key that proves nothing does not help.
      expect(await askRelay(relay, { appName: 'bad', meshKey: 'cd'.repeat(32) })).toBe('refused');
      expect(relay.counter('admission_refused', 'app_name')).toBe(3);
      expect(relay.counter('handshakes_failed', 'refused')).toBe(3);
      expect(relay.counter('accepts')).toBe(7);
      expect(relay.counter('gauge_open_to_anyone')).toBe(1);
    });
  });

  test('that is empty stands for clients that give none', async () => {
    await withRelay({ shards: 1, admission: { disallowAppNames: ['a', ''] } }, async (relay) => {
      expect(await askRelay(relay)).toBe('refused');
      expect(await askRelay(relay, { appName: 'b' })).toBe('admitted');
    });
  });
});

describe('a hook', () => {
  test('hears who asks, and decides', async () => {
    const heard: AdmissionRequest[] = [];
    const admit = async (request: AdmissionRequest) => {
      heard.push(request);
      return request.appName === 'good';
    };
    await withRelay({ shards: 2, admission: { admit } }, async (relay) => {
      const good = await relay.dial();
      expect(await ask(good, { appName: 'good' })).toBe('admitted');
      expect(await askRelay(relay)).toBe('refused');
      expect(heard[0]!.key.equals(good.publicKey)).toBe(true);
      expect(heard[0]).toMatchObject({ appName: 'good', version: 2, isProber: false });
      expect(heard[0]!.address).toMatch(/^127\.0\.0\.1:\d+$/);
      expect(relay.counter('admission_refused', 'hook')).toBe(1);
      expect(relay.counter('gauge_open_to_anyone')).toBe(0);
      expect(relay.server.admission).toContain('hook');
    });
  });

  test.each<[string, () => unknown]>([
    [
      'throws',
      () => {
        throw new Error('broken');
      },
    ],
    ['rejects', () => Promise.reject(new Error('broken'))],
    [
      'throws nothing',
      () => {
        throw undefined;
      },
    ],
    [
      'throws what has no text',
      () => {
        throw Object.create(null);
      },
    ],
    ['rejects with what has no text', () => Promise.reject(Object.create(null))],
    ['answers nothing', () => undefined],
    ['answers a text', () => 'true'],
    ['answers a decision without allow', () => ({ label: 'x' })],
    ['answers a bad label', () => ({ allow: true, label: 'two words' })],
    ['answers a bad rate', () => ({ allow: true, receiveRate: 0.5 })],
  ])('that %s refuses, and the relay goes on', async (_, hook) => {
    let broken = true;
    const admit = (() => (broken ? hook() : true)) as () => AdmitDecision;
    await withRelay({ shards: 1, admission: { admit } }, async (relay) => {
      expect(await askRelay(relay)).toBe('refused');
      broken = false;
      expect(await askRelay(relay)).toBe('admitted');
    });
  });

  test('that does not answer refuses at its deadline, and holds up nobody', async () => {
    const logger = new LogWatch();
    const admit = ({ appName }: AdmissionRequest) => (appName === 'slow' ? new Promise<boolean>(() => {}) : true);
    await withRelay({ shards: 1, logger, admission: { admit, admitTimeout: 1_000 } }, async (relay) => {
      const slow = askRelay(relay, { appName: 'slow' });
      await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 1);
      expect(await askRelay(relay)).toBe('admitted');
      expect(await slow).toBe('refused');
      await logger.line(/rejected: the hook took over 1000 ms$/);
    });
  });

  test('that has answered hears nothing of its deadline', async () => {
    const signals: AbortSignal[] = [];
    const admit = (_: AdmissionRequest, signal: AbortSignal) =>
      signals.push(signal) === 1 ? true : new Promise<boolean>(() => {});
    await withRelay({ shards: 1, admission: { admit, admitTimeout: 500 } }, async (relay) => {
      expect(await askRelay(relay)).toBe('admitted');
      // Its deadline is later than the first one's.
      expect(await askRelay(relay)).toBe('refused');
      expect(signals.map(({ aborted }) => aborted)).toEqual([false, true]);
    });
  });

  test('is told when the client is gone', async () => {
    const { promise: told, resolve } = withResolvers();
    const admit = (_: AdmissionRequest, signal: AbortSignal) => {
      signal.addEventListener('abort', () => resolve());
      return new Promise<boolean>(() => {});
    };
    await withRelay({ shards: 1, admission: { admit, admitTimeout: 60_000 }, tls: false }, async (relay) => {
      const client = await relay.dial();
      await sendClientInfo(client);
      await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 1);
      client.reset();
      await told;
      await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 0);
      await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
      expect(relay.counter('admission_refused', 'hook')).toBe(0);
    });
  });

  test('is asked about no more clients than handshakes may be in progress; newcomers get the places of those that wait longest', async () => {
    const waiting = new Set<AbortSignal>();
    let most = 0;
    const admit = ({ appName }: AdmissionRequest, signal: AbortSignal) => {
      if (appName === 'last') return true;
      waiting.add(signal);
      most = Math.max(most, waiting.size);
      signal.addEventListener('abort', () => waiting.delete(signal));
      return new Promise<boolean>(() => {});
    };
    const options = { shards: 1, admission: { admit, admitTimeout: 60_000 }, handshake: { maxPending: 4 } };
    await withRelay(options, async (relay) => {
      for (let n = 0; n < 4; n++) await sendClientInfo(await relay.dial());
      await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 4);
      const attempt = () => askRelay(relay, { appName: 'last' }).catch(() => 'no room');
      await expect.poll(attempt, { timeout: 15_000 }).toBe('admitted');
      expect(relay.counter('evicted_connections', 'handshakes')).toBeGreaterThan(0);
      await expect.poll(() => waiting.size).toBeLessThan(4);
      expect(most).toBe(4);
    });
  });
});

test('a client that sends packets behind its ClientInfo loses none while the decision is made', async () => {
  let decide: (allow: boolean) => void = () => {};
  const admit = ({ appName }: AdmissionRequest) =>
    appName === 'peer' ||
    new Promise<boolean>((resolve) => {
      decide = resolve;
    });
  await withRelay({ shards: 2, admission: { admit } }, async (relay) => {
    const peer = await relay.dial();
    expect(await ask(peer, { appName: 'peer' })).toBe('admitted');
    const client = await relay.dial();
    await sendClientInfo(client);
    await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 1);
    await client.send(peer.publicKey, Buffer.from('early'));
    decide(true);
    await client.readServerInfo();
    expect((await peer.expectPacket()).packet.toString()).toBe('early');
  });
});

test('closing the relay ends clients that wait', async () => {
  const server = new Server(PrivateKey.generate(), {
    shards: 1,
    handshake: { threads: 1 },
    admission: { admit: () => new Promise<boolean>(() => {}) },
  });
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
  const client = await RawClient.dial(port);
  await sendClientInfo(client);
  while (server.expVar().gauge_admission_waiting === 0) await new Promise(setImmediate);
  await server.close();
  await client.expectClose();
});

test.each([
  [{ url: 'ftp://x' }, 'admission.url'],
  [{ url: 'x' }, 'admission.url'],
  [{ keyFile: '/nonexistent/keys' }, 'allowed keys /nonexistent/keys: ENOENT'],
  [{ admitTimeout: 0 }, 'admission.admitTimeout 0'],
  [{ urlCache: -1 }, 'admission.urlCache -1'],
  [{ admit: true }, 'admission.admit'],
  [{ disallowAppNames: 'a' }, 'admission.disallowAppNames'],
])('%j is refused by the constructor', (admission, text) => {
  const make = () => new Server(PrivateKey.generate(), { shards: 1, admission: admission as object });
  expect(make).toThrow(
    expect.objectContaining({ code: 'ERR_DERP_BAD_OPTION', message: expect.stringContaining(text) }),
  );
});

async function sendClientInfo(client: RawClient): Promise<void> {
  await client.write(upgradeHead());
  await client.readHead();
  const serverKey = await client.readServerKey();
  await client.write(frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey })));
}

/** Node 20 has none. */
function withResolvers() {
  let resolve: () => void = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
