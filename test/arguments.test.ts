/** Every public entry says what is wrong with its arguments. The list of entries is the package's own: a new one needs a row here. */
import { connect, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import * as derplane from 'derplane';
import {
  BootstrapDns,
  Client,
  createMetricsServer,
  createPageServer,
  DerpError,
  debugAccess,
  debugPages,
  PrivateKey,
  PublicKey,
  pages,
  RelayClient,
  Server,
  StunServer,
  TlsContext,
} from 'derplane';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const MESH_KEY = 'c9'.repeat(32);
const key = PrivateKey.generate();
const peer = PrivateKey.generate().publicKey;
const URL_OF_NOBODY = 'http://127.0.0.1:1/derp';

let relay: Server;
let client: Client;
let dialled: RelayClient;
let socket: Socket;
const tls = new TlsContext();

beforeAll(async () => {
  relay = new Server(key, { shards: 1, handshake: { threads: 1 }, mesh: { key: MESH_KEY } });
  const { port } = await relay.listen({ host: '127.0.0.1', port: 0 });
  const url = `http://127.0.0.1:${port}/derp`;
  dialled = new RelayClient(PrivateKey.generate(), url, { meshKey: MESH_KEY });
  socket = connect(port, '127.0.0.1');
  socket.write(`GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n`);
  client = await Client.connect(PrivateKey.generate(), socket, { meshKey: MESH_KEY });
  await Promise.all([client.ready(), dialled.connect()]);
});

afterAll(async () => {
  client.close();
  dialled.close();
  await relay.close();
});

/** Wrong calls of an entry: what is called, and what the error says. An entry without arguments has none. */
type Row = [entry: string, calls: [call: () => unknown, message: string | RegExp][]];

// biome-ignore lint/suspicious/noExplicitAny: what JavaScript callers may pass, which the types forbid
type Anything = any;
const any = (value: unknown) => value as Anything;
const detached = () => {
  const bytes = new Uint8Array(8);
  structuredClone(bytes, { transfer: [bytes.buffer] });
  return bytes;
};

/** What each entry that takes packets refuses. */
const badBytes = (name: string, call: (bytes: Anything) => unknown): Row[1] => [
  [
    () => call(any('text')),
    `${name}: must be a Buffer or Uint8Array, not a string; for its UTF-8 bytes use Buffer.from`,
  ],
  [
    () => call(any(new ArrayBuffer(8))),
    `${name}: must be a Buffer or Uint8Array, not an ArrayBuffer; use new Uint8Array(`,
  ],
  [() => call(any(new SharedArrayBuffer(8))), `${name}: must be a Buffer or Uint8Array, not a SharedArrayBuffer`],
  [() => call(any(new DataView(new ArrayBuffer(8)))), `${name}: must be a Buffer or Uint8Array, not a DataView`],
  [() => call(any(new Uint16Array(4))), `${name}: must be a Buffer or Uint8Array, not a Uint16Array`],
  [() => call(any([1, 2, 3])), `${name}: must be a Buffer or Uint8Array, not an array`],
  [() => call(any(undefined)), `${name}: must be a Buffer or Uint8Array, not undefined`],
  [() => call(any(detached())), `${name}: its ArrayBuffer is detached`],
];
const badKey = (name: string, call: (key: Anything) => unknown): Row[1] => [
  [() => call(any(peer.toString())), `${name}: must be a PublicKey, not a string; read it by PublicKey.parse(text)`],
  [() => call(any(peer.bytes)), `${name}: must be a PublicKey, not a Uint8Array; make it by PublicKey.fromBytes(`],
  [() => call(any(key)), `${name}: must be a PublicKey, not a PrivateKey; give its publicKey`],
  [() => call(any({ hex: peer.hex })), `${name}: must be a PublicKey, not an object`],
  [() => call(any(null)), `${name}: must be a PublicKey, not null`],
];
const badSignal = (call: (options: Anything) => unknown): Row[1] => [
  [() => call(any({ signal: 'now' })), 'signal: must be an AbortSignal, not a string'],
  [() => call(any({ sginal: AbortSignal.timeout(1) })), 'unknown option "sginal": did you mean signal?'],
  [() => call(any(null)), 'options: must be an object, not null'],
  [() => call(any(5)), 'options: must be an object, not 5'],
];

/** The two clients have the same methods. */
const clientRows = (name: string, get: () => Client | RelayClient): Row[] => [
  [
    `${name}.send`,
    [
      ...badKey('destination', (k) => get().send(k, Buffer.from('x'))),
      ...badBytes('packet', (b) => get().send(peer, b)),
    ],
  ],
  [
    `${name}.forwardPacket`,
    [
      ...badKey('source', (k) => get().forwardPacket(k, peer, Buffer.from('x'))),
      ...badKey('destination', (k) => get().forwardPacket(peer, k, Buffer.from('x'))),
      ...badBytes('packet', (b) => get().forwardPacket(peer, peer, b)),
    ],
  ],
  [`${name}.closePeer`, badKey('peer', (k) => get().closePeer(k))],
  [`${name}.sendPong`, badBytes('data', (b) => get().sendPong(b))],
  [
    `${name}.notePreferred`,
    [[() => get().notePreferred(any('yes')), 'preferred: must be true or false, not a string']],
  ],
  [`${name}.recv`, badSignal((o) => get().recv(o))],
  [`${name}.ping`, badSignal((o) => get().ping(o))],
  [`${name}.packets`, badSignal((o) => get().packets(o).next())],
  [`${name}.watchConnectionChanges`, []],
  [`${name}.close`, []],
];

const badHost = (call: (host: Anything) => unknown): Row[1] => [
  [() => call(any(5)), /^(host|url): must be a string/],
  [() => call(any('ftp://derp.test')), 'scheme ftp: must be https or http'],
  [() => call(any('derp.test:99999')), 'port "99999": must be an integer from 1 to 65535'],
];
const badForwarder = (call: (key: Anything, forwarder: Anything) => unknown): Row[1] => [
  ...badKey('destination', (k) => call(k, any({ forwardPacket() {} }))),
  [() => call(any(peer), any(undefined)), 'forwarder: must be a PacketForwarder, not undefined'],
  [
    () => call(any(peer), any({ forward() {} })),
    'forwarder: must be a PacketForwarder, not an object; it has no method forwardPacket()',
  ],
];
const server = (options: unknown) => () => new Server(key, any(options));

const rows: Row[] = [
  [
    'new Server',
    [
      [() => new Server(any(undefined)), 'privateKey: must be a PrivateKey, not undefined'],
      [
        () => new Server(any(key.serialize())),
        'privateKey: must be a PrivateKey, not a string; read it by PrivateKey.parse(text)',
      ],
      [() => new Server(any(peer)), 'privateKey: must be a PrivateKey, not a PublicKey'],
      [server(null), 'options: must be an object, not null'],
      [server('shards=1'), 'options: must be an object, not a string'],
      [server({ shards: 64 }), 'shards 64: must be an integer from 1 to 63'],
      [server({ shards: '2' }), 'shards: must be an integer from 1 to 63, not a string'],
      [server({ shards: Number.NaN }), 'shards NaN: must be an integer from 1 to 63'],
      [server({ shards: null }), 'shards: must be an integer from 1 to 63, not null'],
      [server({ queues: { depth: 1.5 } }), 'queues.depth 1.5: must be an integer from 1 to 65536'],
      [server({ timeouts: { write: -1 } }), 'timeouts.write -1: must be an integer from 0 to 86400000'],
      [server({ timeouts: 5 }), 'timeouts: must be an object, not 5'],
      [server({ derp: 1 }), 'derp: must be true or false, not 1'],
      [server({ duplicatePolicy: 'none' }), 'duplicatePolicy "none": must be last-writer-active or disable-fighters'],
      [server({ logger: {} }), 'logger: must be a logger, not an object; it has no method debug()'],
      [server({ mesh: { key: 'abc' } }), 'invalid mesh key: 3 characters'],
      [server({ mesh: { key: 5 } }), 'mesh.key: must be a string, not 5'],
      [server({ mesh: { with: 'derp.test' } }), 'mesh.with: must be an array, not a string'],
      [server({ mesh: { key: MESH_KEY, with: [5] } }), 'mesh.with[0]: must be a string, not 5'],
      [server({ mesh: { key: MESH_KEY, with: ['a/b/c'] } }), 'too many components'],
      [server({ mesh: { with: ['derp.test'] } }), 'the relay has no mesh key'],
      [server({ mesh: { ca: [5] } }), 'mesh.ca[0]: must be a PEM text, as string or Buffer, not 5'],
      [server({ queueDepht: 5 }), 'unknown option "queueDepht": did you mean queues.depth?'],
      [server({ queueDepth: 5 }), 'unknown option "queueDepth": did you mean queues.depth?'],
      [server({ writeTimeout: 5 }), 'unknown option "writeTimeout": did you mean timeouts.write?'],
      [server({ meshKey: MESH_KEY }), 'unknown option "meshKey": did you mean mesh.key?'],
      [server({ meshWith: [] }), 'unknown option "meshWith": did you mean mesh.with?'],
      [server({ handshakeThreads: 1 }), 'unknown option "handshakeThreads": did you mean handshake.threads?'],
      [server({ shard: 1 }), 'unknown option "shard": did you mean shards?'],
      [server({ queues: { dept: 1 } }), 'unknown option "queues.dept": did you mean queues.depth?'],
      [server({ zzzzzzzz: 1 }), 'unknown option "zzzzzzzz": known are derp, shards,'],
    ],
  ],
  ['Server.ready', []],
  ['Server.reloadAdmission', []],
  [
    'Server.setMeshKey',
    [
      [() => relay.setMeshKey(any(5)), 'it is not a string'],
      [() => relay.setMeshKey('abc'), '3 characters'],
    ],
  ],
  ['Server.addMeshPeer', badHost((host) => relay.addMeshPeer(host))],
  [
    'Server.setRateLimit',
    [
      [() => relay.setRateLimit(any('fast')), 'bytesPerSecond: must be an integer from 0 to'],
      [() => relay.setRateLimit(Number.NaN), 'bytesPerSecond NaN: must be an integer'],
      [() => relay.setRateLimit(1, -1), 'burst -1: must be an integer from 0'],
    ],
  ],
  ['Server.shardOf', badKey('key', (k) => relay.shardOf(k))],
  [
    'Server.listen',
    [
      [() => relay.listen(any(undefined)), 'options: must be an object, not undefined'],
      [() => relay.listen(any({})), 'port: is missing'],
      [() => relay.listen({ port: 70_000 }), 'port 70000: must be an integer from 0 to 65535'],
      [() => relay.listen(any({ port: '80' })), 'port: must be an integer from 0 to 65535, not a string'],
      [() => relay.listen(any({ port: 0, host: 5 })), 'host: must be a string, not 5'],
      [() => relay.listen({ port: 0, host: '' }), 'host: is empty'],
      [() => relay.listen(any({ port: 0, tls: {} })), 'tls: must be a TlsContext, not an object'],
      [
        () => relay.listen(any({ port: 0, httpServer: () => 0 })),
        'httpServer: must be an http.Server or https.Server, not a function; give it the server',
      ],
      [() => relay.listen({ port: 0, tcpKeepaliveTime: 1 }), 'tcpKeepaliveTime 1: must be an integer from 1000'],
      [() => relay.listen({ port: 0, tcpUserTimeout: -1 }), 'tcpUserTimeout -1: must be an integer from 0'],
      [() => relay.listen(any({ port: 0, hots: '::' })), 'unknown option "hots": did you mean host?'],
    ],
  ],
  [
    'Server.attach',
    [[() => relay.attach(any({})), 'httpServer: must be an http.Server or https.Server, not an object']],
  ],
  [
    'Server.accept',
    [
      [() => relay.accept(any(undefined)), 'socket: must be a stream that reads and writes, not undefined'],
      [
        () => relay.accept(any({ write() {} })),
        'socket: must be a stream that reads and writes, not an object; it has no method on()',
      ],
      ...badBytes('head', (b) =>
        b === undefined ? relay.accept(new PassThrough(), any(null)) : relay.accept(new PassThrough(), b),
      ).filter(([, message]) => !String(message).endsWith('undefined')),
      [() => relay.accept(new PassThrough(), Buffer.alloc(0), any(5)), 'remoteAddress: must be a string, not 5'],
      [
        () => relay.accept(new PassThrough(), Buffer.alloc(0), 'host:80'),
        'remoteAddress "host:80": must be IP:PORT or [IPv6]:PORT',
      ],
      [() => relay.accept(new PassThrough(), Buffer.alloc(0), '::1:80'), 'remoteAddress "::1:80": must be IP:PORT'],
    ],
  ],
  ['Server.addPacketForwarder', badForwarder((k, f) => relay.addPacketForwarder(k, f))],
  ['Server.removePacketForwarder', badForwarder((k, f) => relay.removePacketForwarder(k, f))],
  ['Server.consistencyCheck', []],
  ['Server.ping', []],
  ['Server.traffic', []],
  [
    'Server.clients',
    [
      [() => relay.clients(any({ sorted: 'key' })), 'unknown option "sorted": did you mean sort?'],
      [() => relay.clients(any({ sort: 'name' })), 'sort "name": must be key or ip or'],
      [() => relay.clients({ limit: 1001 }), 'limit 1001: must be an integer from 1 to 1000'],
      [() => relay.clients({ ip: 'x' }), 'ip "x": is not an IP address'],
      [() => relay.clients({ cidr: '1.2.3.4/33' }), 'cidr "1.2.3.4/33": needs an address and a prefix length'],
      [() => relay.clients({ ip: '::1', cidr: '::/0' }), 'at most one of key, ip and cidr may be given'],
      [() => relay.clients({ apps: any('x') }), 'apps: must be an array, not a string'],
      [() => relay.clients({ after: any(1) }), 'after: must be a place'],
      [() => relay.clients({ after: { value: 1n } }), 'after.value: must be a PublicKey for the order by key'],
      [() => relay.clients({ sort: 'ip', after: { value: 'x' } }), 'after.value "x": needs ip or ip:port'],
    ],
  ],
  ['Server.shardVars', []],
  ['Server.expVar', []],
  [
    'Server.close',
    [
      [() => relay.close({ drainTime: -1 }), 'drainTime -1: must be an integer from 0 to 86400000'],
      [() => relay.close(any({ drainTme: 5 })), 'unknown option "drainTme": did you mean drainTime?'],
      [() => relay.close(any(null)), 'options: must be an object, not null'],
      [() => relay.close(any(1000)), 'options: must be an object, not 1000'],
    ],
  ],
  [
    'Client.connect',
    [
      [() => Client.connect(any(undefined), new PassThrough()), 'privateKey: must be a PrivateKey, not undefined'],
      [() => Client.connect(key, any(5)), 'conn: must be a Conn, such as a net.Socket, not 5'],
      [() => Client.connect(key, any({ write() {} })), 'it has no method on()'],
      [() => Client.connect(key, new PassThrough(), { meshKey: 'abc' }), 'meshKey: 3 characters'],
      [
        () => Client.connect(key, new PassThrough(), any({ serverPublicKey: 'nodekey:' })),
        'serverPublicKey: must be a PublicKey',
      ],
      [() => Client.connect(key, new PassThrough(), any({ head: 'x' })), 'head: must be a Buffer or Uint8Array'],
      [
        () => Client.connect(key, new PassThrough(), { handshakeTimeout: 0 }),
        'handshakeTimeout 0: must be an integer from 1',
      ],
      ...badSignal((o) => Client.connect(key, new PassThrough(), o)),
    ],
  ],
  ['Client.ready', badSignal((o) => client.ready(o))],
  ...clientRows('Client', () => client),
  [
    'new RelayClient',
    [
      [() => new RelayClient(any('privkey:'), URL_OF_NOBODY), 'privateKey: must be a PrivateKey, not a string'],
      [() => new RelayClient(key, any(undefined)), 'url: must be a string or a URL, not undefined'],
      ...badHost((url) => new RelayClient(key, url)),
      [() => new RelayClient(key, URL_OF_NOBODY, { connectTimeout: Number.NaN }), 'connectTimeout NaN: must be'],
      [() => new RelayClient(key, URL_OF_NOBODY, { meshKey: 'abc' }), 'meshKey: 3 characters'],
      [() => new RelayClient(key, URL_OF_NOBODY, any({ ca: 5 })), 'ca: must be a PEM text, as string or Buffer, not 5'],
      [() => new RelayClient(key, URL_OF_NOBODY, { ca: 'no PEM' }), 'ca: there is no PEM certificate'],
      [() => new RelayClient(key, URL_OF_NOBODY, { certName: 'sha256-raw:0f' }), '"sha256-raw:0f" is not a pin'],
      [() => new RelayClient(key, URL_OF_NOBODY, any({ fastStart: 'yes' })), 'fastStart: must be true or false'],
      [() => new RelayClient(key, URL_OF_NOBODY, { idealNode: 'a\nb' }), 'idealNode has characters'],
      [
        () => new RelayClient(key, URL_OF_NOBODY, any({ faststart: true })),
        'unknown option "faststart": did you mean fastStart?',
      ],
      [() => new RelayClient(key, URL_OF_NOBODY, any(null)), 'options: must be an object, not null'],
    ],
  ],
  ...clientRows('RelayClient', () => dialled),
  ['RelayClient.connect', badSignal((o) => dialled.connect(o))],
  ['RelayClient.recvDetail', badSignal((o) => dialled.recvDetail(o))],
  [
    'RelayClient.runWatchConnectionLoop',
    [
      [() => dialled.runWatchConnectionLoop(any(undefined)), 'options: must be an object, not undefined'],
      [() => dialled.runWatchConnectionLoop(any({ add() {} })), 'remove: must be a function, not undefined'],
      [
        () => dialled.runWatchConnectionLoop(any({ add() {}, remove() {}, onerror() {} })),
        'unknown option "onerror": did you mean onError?',
      ],
      [() => dialled.runWatchConnectionLoop({ add() {}, remove() {}, retryInterval: 0 }), 'retryInterval 0: must be'],
    ],
  ],
  [
    'PublicKey.parse',
    [
      [() => PublicKey.parse(any(5)), 'public key: must be a string, not 5'],
      [() => PublicKey.parse('x'), 'does not begin with'],
    ],
  ],
  [
    'PublicKey.fromHex',
    [
      [() => PublicKey.fromHex(any(null)), 'public key: must be a string, not null'],
      [() => PublicKey.fromHex('ab'), '2 characters'],
    ],
  ],
  [
    'PublicKey.fromBytes',
    [
      ...badBytes('bytes of a public key', (b) => PublicKey.fromBytes(b)),
      [() => PublicKey.fromBytes(Buffer.alloc(5)), '5 bytes'],
    ],
  ],
  ['PublicKey.equals', badKey('other', (k) => peer.equals(k))],
  ['PublicKey.toString', []],
  ['PublicKey.toJSON', []],
  ['PublicKey.shortString', []],
  ['PrivateKey.generate', []],
  [
    'PrivateKey.parse',
    [
      [() => PrivateKey.parse(any(5)), 'private key: must be a string, not 5'],
      [() => PrivateKey.parse('x'), 'does not begin with'],
    ],
  ],
  [
    'PrivateKey.fromBytes',
    [
      ...badBytes('bytes of a private key', (b) => PrivateKey.fromBytes(b)),
      [() => PrivateKey.fromBytes(Buffer.alloc(5)), '5 bytes'],
    ],
  ],
  ['PrivateKey.serialize', []],
  ['PrivateKey.toString', []],
  ['PrivateKey.toJSON', []],
  [
    'new TlsContext',
    [
      [() => new TlsContext(any({ onwanted() {} })), 'unknown option "onwanted": did you mean onWanted?'],
      [() => new TlsContext(any({ onWanted: 5 })), 'onWanted: must be a function, not 5'],
    ],
  ],
  [
    'TlsContext.set',
    [
      [() => tls.set(any(5), []), 'name: must be a string, not 5'],
      [() => tls.set('', []), 'name "": not a DNS name'],
      [() => tls.set('a', any({})), 'certificates: must be an array, not an object'],
      [
        () => tls.set('a', any([{ cert: 'x' }])),
        'certificates[0].key: must be a PEM text, as string or Buffer, not undefined',
      ],
      [() => tls.set('a', any([{ cert: 'x', key: 'x', ca: 'x' }])), 'unknown option "certificates[0].ca"'],
      [() => tls.set('a', [{ cert: 'x', key: 'x' }]), 'certificate of "a"'],
    ],
  ],
  [
    'TlsContext.setChallenge',
    [[() => tls.setChallenge('a', any(undefined)), 'certificate: must be an object, not undefined']],
  ],
  ...['delete', 'deleteChallenge', 'expect', 'unexpect'].map(
    (method): Row => [`TlsContext.${method}`, [[() => any(tls)[method](5), 'name: must be a string, not 5']]],
  ),
  [
    'debugAccess',
    [
      [() => debugAccess(any(5)), 'env: must be an object of variables'],
      [() => debugAccess({ TS_ALLOW_DEBUG_IP: 'x' }), 'TS_ALLOW_DEBUG_IP'],
    ],
  ],
  [
    'new BootstrapDns',
    [
      [() => new BootstrapDns(any({ names: ['a'] })), 'names: must be a string, not an array'],
      [() => new BootstrapDns(any({ resolver: {} })), 'it has no method addresses()'],
      [() => new BootstrapDns(any({ unpublishedName: 'a' })), 'did you mean unpublishedNames?'],
    ],
  ],
  ['BootstrapDns.start', []],
  ['BootstrapDns.close', []],
  ['BootstrapDns.counts', []],
  [
    'StunServer.listen',
    [
      [() => StunServer.listen(any({ port: 70_000 })), 'port 70000: must be an integer from 0 to 65535'],
      [() => StunServer.listen(any({ answersPerSecond: -1 })), 'answersPerSecond -1: must be an integer from 0'],
      [() => StunServer.listen(any({ hots: 'x' })), 'did you mean host?'],
    ],
  ],
  ['new StunServer', []],
  ['StunServer.close', []],
  ['StunServer.stats', []],
  [
    'debugPages',
    [
      [() => debugPages(any({ relay: {} })), 'relay: must be a Server, not an object; it has no method expVar()'],
      [() => debugPages(any({ acces: 1 })), 'did you mean access?'],
    ],
  ],
  [
    'createMetricsServer',
    [
      [() => createMetricsServer(any(undefined)), 'options: must be an object, not undefined'],
      [() => createMetricsServer(any({})), 'host: is missing'],
      [() => createMetricsServer(any({ host: '', access: () => true })), 'unknown option "access"'],
    ],
  ],
  [
    'pages',
    [
      [() => pages(any({ home: 5 })), 'home: must be a string, not 5'],
      [() => pages({ home: 'x' }), 'home'],
    ],
  ],
  [
    'createPageServer',
    [[() => createPageServer(any({ derpEnable: true })), 'unknown option "derpEnable": did you mean derpEnabled?']],
  ],
  // Made by derplane itself.
  ['new DerpError', []],
];

/** Every function, constructor and method that the package exports. */
function entries(): string[] {
  return Object.entries(derplane as Record<string, unknown>).flatMap(([name, value]) => {
    if (typeof value !== 'function') return [];
    const methods = (object: object) =>
      Object.entries(Object.getOwnPropertyDescriptors(object))
        .filter(([method, { value }]) => typeof value === 'function' && method !== 'constructor')
        .map(([method]) => `${name}.${method}`);
    if (!/^class\b/.test(Function.prototype.toString.call(value))) return [name];
    const isConstructible = !['Client', 'PublicKey', 'PrivateKey'].includes(name); // their constructors are private
    return [...(isConstructible ? [`new ${name}`] : []), ...methods(value), ...methods(value.prototype as object)];
  });
}

describe('wrong arguments', () => {
  test('are looked at in every entry of the package', () => {
    expect(rows.map(([entry]) => entry).toSorted()).toEqual(entries().toSorted());
  });

  test.each(rows.filter(([, calls]) => calls.length > 0))('of %s are named in a DerpError', async (entry, calls) => {
    const rejects = /^((?:Stun)?Server\.(listen|accept|close|clients)|Client\.connect|(Relay)?Client\.\w+)$/.test(
      entry,
    );
    for (const [call, message] of calls) {
      let result: unknown;
      let error: unknown;
      try {
        result = call();
        expect(rejects, `${entry} throws instead of rejecting`).toBe(true);
      } catch (thrown) {
        error = thrown;
        expect(rejects, `${entry} throws instead of rejecting: ${(thrown as Error).message}`).toBe(false);
      }
      error ??= await (result as Promise<unknown>).then(
        () => new Error(`nothing is wrong with ${call}`),
        (rejection: unknown) => rejection,
      );
      expect(error).toBeInstanceOf(DerpError);
      expect((error as DerpError).code).toMatch(/^ERR_DERP_(BAD_OPTION|BAD_KEY|NO_MESH_KEY|CERTIFICATE)$/);
      if (message instanceof RegExp) expect((error as Error).message).toMatch(message);
      else expect((error as Error).message).toContain(message);
      expect((error as Error).message).not.toContain(key.serialize().slice('privkey:'.length));
    }
  });

  test('leave relay and clients as they were', async () => {
    await expect(client.ping()).resolves.toBeGreaterThan(0);
    await expect(dialled.send(client.publicKey, Buffer.from('still here'))).resolves.toBe(true);
    for await (const { data } of client.packets()) {
      expect(data.toString()).toBe('still here');
      break;
    }
    await relay.consistencyCheck();
  });
});

test('bytes on shared memory are sent as they are at the call', async () => {
  const shared = new Uint8Array(new SharedArrayBuffer(5));
  shared.set(Buffer.from('first'));
  const sending = dialled.send(client.publicKey, shared);
  shared.set(Buffer.from('later'));
  await sending;
  for await (const { data } of client.packets()) {
    expect(data.toString()).toBe('first');
    break;
  }
});
