/**
 * Strangers who open connections and stop, and newcomers who want in meanwhile: a process of its own. It gets `SilentAttack` as JSON, says
 * `SilentReady` when it has opened as many as it should, and answers `stop` with `SilentResult`.
 *
 * A connection that the relay ends is opened anew, so the attack never gets weaker.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { hello, newKeyPair } from './hello.js';
import type { SilentStop } from './scenarios.js';

export interface SilentAttack {
  port: number;
  tls: boolean;
  /** Hexadecimal. */
  publicKey: string;
  /** Connections kept open. */
  connections: number;
  /** Addresses of 127/8 that they come from; newcomers come from another one. */
  addresses: number;
  stop: SilentStop;
}

export type SilentReady = 'ready';

export interface SilentResult {
  newcomers: number;
  failed: number;
  /** Milliseconds from connecting until a newcomer was in, median. */
  entry: number;
  /** Connections that were opened in place of ended ones. */
  reopened: number;
}

/** Most connections that are opened a second. */
const OPEN_RATE = 2_000;
const NEWCOMERS_PER_SECOND = 100;
/** Milliseconds after which a newcomer has failed. */
const PATIENCE = 5_000;
const TICK = 10;
const DRIP = 900;
const NEWCOMER_ADDRESS = '127.0.0.1';
const SERVER_INFO = 0x03;
const FRAME_HEADER = 5;
const PAGE = Buffer.from('GET /derp/probe HTTP/1.1\r\nHost: relay.test\r\n\r\n');

const attack = JSON.parse(process.argv[2]!) as SilentAttack;
const { port, tls, stop } = attack;
const relayKey = Buffer.from(attack.publicKey, 'hex');
const firstBytes = stop === 'ClientHello' ? await clientHello() : stop === 'page' ? PAGE : Buffer.from('G');

let open = 0;
let opened = 0;
const dripping = new Set<Socket>();

function openOne(): void {
  const n = opened++ % attack.addresses;
  const localAddress = `127.1.${n >> 8}.${n & 0xff}`;
  open++;
  const socket = connect({ port, host: '127.0.0.1', localAddress });
  socket.on('error', () => undefined);
  socket.on('close', () => {
    open--;
    dripping.delete(socket);
  });
  socket.resume();
  if (stop !== 'connect') socket.write(firstBytes);
  if (stop === 'drip') dripping.add(socket);
}

/** Bytes with which a TLS client begins. */
function clientHello(): Promise<Buffer> {
  return new Promise((resolve) => {
    const wire = new Duplex({ read: () => undefined, write: (chunk: Buffer) => resolve(chunk) });
    connectTls({ socket: wire, rejectUnauthorized: false }).on('error', () => undefined);
  });
}

const entries: number[] = [];
let failed = 0;

async function newcomer(): Promise<void> {
  const start = performance.now();
  const socket = connect({ port, host: '127.0.0.1', localAddress: NEWCOMER_ADDRESS });
  const stream = tls ? connectTls({ socket, rejectUnauthorized: false }) : socket;
  for (const each of new Set([socket, stream])) each.on('error', () => undefined);
  try {
    stream.write(stop === 'page' ? PAGE : hello(port, relayKey, newKeyPair()));
    await until(stream, stop === 'page' ? (bytes) => bytes.includes('\r\n\r\n') : hasServerInfo);
    entries.push(performance.now() - start);
  } catch {
    failed++;
  } finally {
    stream.destroy();
    socket.destroy();
  }
}

async function until(stream: Duplex, done: (bytes: Buffer) => boolean): Promise<void> {
  const signal = AbortSignal.timeout(PATIENCE);
  let bytes = Buffer.alloc(0);
  while (!done(bytes)) {
    const ended = once(stream, 'close', { signal }).then(() => Promise.reject(new Error('closed')));
    const [chunk] = (await Promise.race([once(stream, 'data', { signal }), ended])) as [Buffer];
    bytes = Buffer.concat([bytes, chunk]);
  }
}

function hasServerInfo(bytes: Buffer): boolean {
  for (let at = 0; at + FRAME_HEADER <= bytes.length; at += FRAME_HEADER + bytes.readUInt32BE(at + 1)) {
    if (bytes[at] === SERVER_INFO) return true;
  }
  return false;
}

let ready = false;
let next = performance.now();
setInterval(() => {
  for (let n = (OPEN_RATE * TICK) / 1000; n > 0 && open < attack.connections; n--) openOne();
  if (opened < attack.connections) return;
  if (!ready) {
    ready = true;
    next = performance.now();
    process.send?.('ready' satisfies SilentReady);
  }
  for (; next <= performance.now(); next += 1000 / NEWCOMERS_PER_SECOND) void newcomer();
}, TICK);
setInterval(() => {
  for (const socket of dripping) socket.write('G');
}, DRIP);

process.once('message', () => {
  entries.sort((a, b) => a - b);
  const result: SilentResult = {
    newcomers: entries.length + failed,
    failed,
    entry: entries[entries.length >> 1] ?? Number.NaN,
    reopened: opened - attack.connections,
  };
  process.send?.(result, () => process.exit());
});
process.once('disconnect', () => process.exit());
