/** TLS handshakes: who is let in, with what certificate, and what becomes of the others. */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { TlsContext } from 'derplane';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { OPERATOR_RATE } from '../dist/log_limit.js';
import { makeCertificate, type TestCertificate } from './support/certificates.js';
import { CutSocket } from './support/cut_socket.js';
import { LogWatch } from './support/log_watch.js';
import { RawClient } from './support/raw_client.js';
import { patterned, type RelayOptions, type TestRelay, withRelay } from './support/relay.js';

const NAME = 'derp.example.com';

const made: Record<'first' | 'second' | 'challenge', TestCertificate> = {} as never;

beforeAll(async () => {
  for (const name of ['first', 'second', 'challenge'] as const) made[name] = await makeCertificate({ names: [NAME] });
});

const pem = ({ cert, keyPem: key }: TestCertificate) => ({ cert, key });

/** A relay that answers `names` with the first certificate. */
function withNames(
  names: string[],
  body: (relay: TestRelay, context: TlsContext) => Promise<void>,
  options: Partial<RelayOptions> = {},
  context = new TlsContext(),
): Promise<void> {
  for (const name of names) context.set(name, [pem(made.first)]);
  return withRelay({ shards: 1, ...options, tls: context }, (relay) => body(relay, context));
}

function start(relay: TestRelay, options: ConnectionOptions = {}): TLSSocket {
  const socket = connectTls({ port: relay.port, host: '127.0.0.1', rejectUnauthorized: false, ...options });
  onTestFinished(() => void socket.destroy());
  return socket;
}

/** A connection past its TLS handshake. */
async function shake(relay: TestRelay, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = start(relay, options);
  await once(socket, 'secureConnect');
  return socket;
}

/** Alerts by their numbers in RFC 8446: their names differ between versions of OpenSSL. */
const Alert = { handshakeFailure: 40, protocolVersion: 70, internalError: 80, noApplicationProtocol: 120 } as const;

/** The number of the alert that ends the handshake; without an alert the error's code. */
async function alertOf(relay: TestRelay, options: ConnectionOptions = {}): Promise<number | string> {
  const socket = start(relay, options);
  socket.resume();
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    socket.once('error', resolve).once('close', () => resolve(undefined));
  });
  const number = error?.message.match(/SSL alert number (\d+)/)?.[1];
  return number === undefined ? (error?.code ?? 'none') : Number(number);
}

function presented(socket: TLSSocket): string {
  return new X509Certificate(socket.getPeerCertificate().raw).fingerprint256;
}

const fingerprint = (certificate: TestCertificate) => new X509Certificate(certificate.cert).fingerprint256;

/** A TCP connection on which nothing was said yet. */
async function tcp(relay: TestRelay): Promise<Socket> {
  const socket = connectTcp(relay.port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  await once(socket, 'connect');
  return socket;
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  await ended(socket);
  return Buffer.concat(chunks);
}

/** Resolves when the other side has ended the connection, by FIN or reset. */
function ended(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket
      .on('end', resolve)
      .on('close', () => resolve())
      .on('error', () => undefined);
  });
}

const failures = (relay: TestRelay, count: number) =>
  relay.untilCounter(['handshakes_failed', 'tls'], (value) => value === count);

describe('a name', () => {
  it('is served to whom asks for it, in any case, and refused to all others with internal_error', () =>
    withNames([NAME], async (relay) => {
      for (const servername of [NAME, NAME.toUpperCase()]) {
        expect(presented(await shake(relay, { servername }))).toBe(fingerprint(made.first));
      }
      for (const servername of ['', 'other.example.com', `x.${NAME}`, `${NAME}.x`]) {
        expect(await alertOf(relay, { servername })).toBe(Alert.internalError);
      }
      await failures(relay, 4);
    }));

  it('that is an address is served to whom connects to it without a name, and refused to others', () =>
    withNames(['127.0.0.1'], async (relay) => {
      expect(presented(await shake(relay))).toBe(fingerprint(made.first));
      expect(await alertOf(relay, { servername: NAME })).toBe(Alert.internalError);
      const { port } = await relay.listen({ host: '0.0.0.0' });
      expect(await alertOf(relay, { port, host: '127.0.0.2' })).toBe(Alert.internalError);
      await failures(relay, 2);
    }));

  it('`*` is everybody whom no other fits', () =>
    withNames(['*'], async (relay, context) => {
      context.set(NAME, [pem(made.second)]);
      expect(presented(await shake(relay))).toBe(fingerprint(made.first));
      expect(presented(await shake(relay, { servername: 'other.example.com' }))).toBe(fingerprint(made.first));
      expect(presented(await shake(relay, { servername: NAME }))).toBe(fingerprint(made.second));
    }));

  it('may get another certificate at any moment, and connections go on', () =>
    withNames(['*'], async (relay, context) => {
      const before = await (await relay.dial(undefined, { tls: { rejectUnauthorized: false } })).open();
      expect(presented(before.stream as TLSSocket)).toBe(fingerprint(made.first));
      context.set('*', [pem(made.second)]);
      const after = await relay.dial(undefined, { tls: { rejectUnauthorized: false } });
      expect(presented(after.stream as TLSSocket)).toBe(fingerprint(made.second));
      await after.open();
      await before.send(after.publicKey, patterned(500));
      expect((await after.expectPacket()).packet).toEqual(patterned(500));
      context.delete('*');
      expect(await alertOf(relay)).toBe(Alert.internalError);
      await after.settle();
    }));
});

describe('a name that is expected', () => {
  it('makes handshakes wait for its certificate, of which one hears once', async () => {
    const wanted: string[] = [];
    const context = new TlsContext({ onWanted: (name) => void wanted.push(name) });
    context.expect(NAME);
    await withNames(
      [],
      async (relay) => {
        const all = Array.from({ length: 20 }, () => shake(relay, { servername: NAME }));
        await expect.poll(() => wanted.length).toBe(1);
        await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === all.length);
        context.set(NAME, [pem(made.first)]);
        for (const socket of await Promise.all(all)) expect(presented(socket)).toBe(fingerprint(made.first));
        expect(wanted).toEqual([NAME]);
        const client = new RawClient(await shake(relay, { servername: NAME }));
        await (await client.open()).settle();
        client.destroy();
      },
      {},
      context,
    );
  });

  it('and given up makes them fail', async () => {
    const context = new TlsContext({ onWanted: (name) => context.unexpect(name) });
    context.expect(NAME);
    await withNames(
      [],
      async (relay) => {
        expect(await alertOf(relay, { servername: NAME })).toBe(Alert.internalError);
        await failures(relay, 1);
      },
      {},
      context,
    );
  });

  it('makes them wait up to the deadline of the request only', async () => {
    const context = new TlsContext();
    context.expect(NAME);
    await withNames(
      [],
      async (relay) => {
        await alertOf(relay, { servername: NAME });
        await relay.untilCounter(['handshakes_failed', 'timeout'], (value) => value === 1);
      },
      { handshake: { requestTimeout: 300 } },
      context,
    );
  });
});

describe('protocols', () => {
  it.each([
    [['http/1.1'], 'http/1.1'],
    [['h2', 'http/1.1'], 'http/1.1'],
    [undefined, false],
  ])('of %j it is %j', (ALPNProtocols, chosen) =>
    withNames(['*'], async (relay) => {
      const socket = await shake(relay, ALPNProtocols && { ALPNProtocols });
      expect(socket.alpnProtocol).toBe(chosen);
    }),
  );

  it('that it does not speak are refused', () =>
    withNames(['*'], async (relay) => {
      expect(await alertOf(relay, { ALPNProtocols: ['h2', 'spdy/3'] })).toBe(Alert.noApplicationProtocol);
      await failures(relay, 1);
    }));

  it('acme-tls/1 is answered with the challenge’s certificate while there is one', () =>
    withNames([NAME], async (relay, context) => {
      const validation = { servername: NAME, ALPNProtocols: ['acme-tls/1'] };
      expect(await alertOf(relay, validation)).toBe(Alert.internalError);
      context.setChallenge(NAME, pem(made.challenge));
      const socket = await shake(relay, validation);
      expect([presented(socket), socket.alpnProtocol]).toEqual([fingerprint(made.challenge), 'acme-tls/1']);
      expect(presented(await shake(relay, { servername: NAME }))).toBe(fingerprint(made.first));
      context.deleteChallenge(NAME);
      expect(await alertOf(relay, validation)).toBe(Alert.internalError);
    }));
});

describe('a handshake fails, and nobody else notices,', () => {
  const weak = 'DEFAULT@SECLEVEL=0';

  it.each<[string, ConnectionOptions, number]>([
    ['with TLS 1.1', { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: weak }, Alert.protocolVersion],
    ['without a cipher of TLS 1.2 in common', { maxVersion: 'TLSv1.2', ciphers: 'AES128-SHA' }, Alert.handshakeFailure],
    [
      'without a cipher of TLS 1.3 in common',
      { minVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_CCM_SHA256' },
      Alert.handshakeFailure,
    ],
    ['without a group in common', { ecdhCurve: 'P-521' }, Alert.handshakeFailure],
  ])('%s', (_, options, alert) =>
    withNames(['*'], (relay) =>
      expectOthersUnmoved(relay, async () => {
        expect(await alertOf(relay, options)).toBe(alert);
        await failures(relay, 1);
      }),
    ),
  );

  it.each([
    ['a fatal alert', Buffer.from('15030300020228', 'hex')],
    ['a record over 2^14 bytes', Buffer.concat([Buffer.from('1603014801', 'hex'), patterned(18_433)])],
    ['a ClientHello that is noise', Buffer.concat([Buffer.from('1603010100010000fc0303', 'hex'), patterned(250)])],
    ['an empty ClientHello', Buffer.from('160301000401000000', 'hex')],
    ['a ServerHello', Buffer.concat([Buffer.from('160303002a020000260303', 'hex'), patterned(36)])],
    ['a ClientHello of 16 MiB', Buffer.concat([Buffer.from('160301400001ffffff0303', 'hex'), patterned(16_378)])],
    ['application data', Buffer.from('17030300050102030405', 'hex')],
    ['SSH', Buffer.from('SSH-2.0-OpenSSH_9.6\r\n')],
    ['zeros', Buffer.alloc(4096)],
  ])('that begins with %s', (_, bytes) =>
    withNames(['*'], (relay) =>
      expectOthersUnmoved(relay, async () => {
        const socket = await tcp(relay);
        socket.write(bytes);
        await readAll(socket);
        await failures(relay, 1);
      }),
    ),
  );

  it.each([
    ['an alert', Buffer.from('15030300020228', 'hex')],
    ['a second ClientHello', undefined],
    ['noise', Buffer.concat([Buffer.from('1703030040', 'hex'), patterned(64)])],
  ])('in which %s follows ClientHello', (_, bytes) =>
    withNames(['*'], (relay) =>
      expectOthersUnmoved(relay, async () => {
        const cut = await CutSocket.connect(relay.port);
        const write = cut._write.bind(cut);
        cut._write = (chunk, encoding, done) => {
          cut._write = () => undefined; // the client says nothing more
          write(Buffer.concat([chunk, bytes ?? chunk]), encoding, done);
        };
        const socket = connectTls({ socket: cut, rejectUnauthorized: false });
        onTestFinished(() => void socket.destroy());
        socket.on('error', () => undefined);
        await ended(cut.socket);
        await failures(relay, 1);
      }),
    ),
  );

  it('whose client does not like the certificate', () =>
    withNames(['*'], (relay) =>
      expectOthersUnmoved(relay, async () => {
        // OpenSSL's alert for a key too short; Node's own check would just hang up.
        await alertOf(relay, { ciphers: 'DEFAULT@SECLEVEL=5' });
        await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
      }),
    ));

  it.each([
    ['nothing at all', 0],
    ['half a ClientHello', 100],
    ['all but one byte of a ClientHello', -1],
  ])('with %s for ever, at its deadline', (_, size) =>
    withNames(
      ['*'],
      (relay) =>
        expectOthersUnmoved(relay, async () => {
          const cut = await CutSocket.connect(relay.port);
          cut.hold();
          const hello = connectTls({ socket: cut, rejectUnauthorized: false });
          onTestFinished(() => void hello.destroy());
          hello.on('error', () => undefined);
          await expect.poll(() => cut.written.length).toBe(1);
          const bytes = cut.written[0] as Buffer;
          cut.socket.write(bytes.subarray(0, size < 0 ? bytes.length + size : size));
          await ended(cut.socket);
          const outcome = size === 0 ? 'silent' : 'timeout';
          await relay.untilCounter(['handshakes_failed', outcome], (value) => value === 1);
        }),
      { handshake: { requestTimeout: 300 } },
    ),
  );
});

describe('the log', () => {
  it.each([false, true])(
    'has one line for a handshake that failed, which says why (clients logged: %j)',
    async (logClients) => {
      const logger = new LogWatch();
      await withNames(
        [NAME],
        async (relay) => {
          // Strangers do not fill the log: after a burst one in 10 s is told, unless all are asked for.
          const told = logClients ? OPERATOR_RATE.burst + 2 : OPERATOR_RATE.burst;
          for (let n = 1; n <= OPERATOR_RATE.burst + 2; n++) {
            await alertOf(relay, { servername: 'other.example.com' });
            await failures(relay, n);
          }
          await logger.line(/TLS/, told);
          const lines = logger.lines.filter((line) => /TLS/.test(line));
          const line = expect.stringMatching(
            /^INFO http: TLS handshake error from 127\.0\.0\.1:\d+: no certificate for the name that the client asks for$/,
          );
          expect(lines).toEqual(Array(told).fill(line));
        },
        { logger, logClients, handshake: { threads: 1 } },
      );
    },
  );
});

describe('the wrong port', () => {
  it.each(['GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'HEAD / HTTP/1.0\r\n\r\n', 'POST /derp HTTP/1.1\r\n\r\n'])(
    'of TLS answers %j as Go’s server does',
    (request) =>
      withNames(['*'], async (relay) => {
        const socket = await tcp(relay);
        socket.write(request);
        expect((await readAll(socket)).toString()).toBe(
          'HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n',
        );
        await failures(relay, 1);
      }),
  );

  it('without TLS ends a TLS handshake at once', () =>
    withRelay({ shards: 1, tls: false }, async (relay) => {
      expect(await alertOf(relay)).toMatch(/^(ERR_SSL_|ECONNRESET)/);
      await relay.untilCounter(['handshakes_failed', 'malformed_request'], (value) => value === 1);
    }));
});

/** Two clients that relay before and after. */
async function expectOthersUnmoved(relay: TestRelay, happening: () => Promise<void>): Promise<void> {
  const tls = { rejectUnauthorized: false };
  const [from, to] = [await relay.dial(undefined, { tls }), await relay.dial(undefined, { tls })];
  await Promise.all([from.open(), to.open()]);
  await happening();
  await from.send(to.publicKey, patterned(1000));
  expect((await to.expectPacket()).packet).toEqual(patterned(1000));
}
