/** The relays that are compared. Each run gets a fresh process on the relay's cores. */
import { type ChildProcess, execFile, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { get as getPlain } from 'node:http';
import { get as getTls } from 'node:https';
import { type AddressInfo, createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CERTIFICATE_HOST, certificateFolder } from './certificate.js';
import { nextMessage, spawnPinned, stop, tailOfErrors } from './process.js';
import type { RelayAnswer, RelayArguments, RelayQuestion, RelayReady, RelayWakes } from './relay.js';

/** A relay that listens on 127.0.0.1. */
export interface RunningRelay {
  readonly pid: number;
  readonly port: number;
  readonly tls: boolean;
  /** Its public key, 32 bytes. */
  readonly publicKey: Buffer;
  readonly shards: number;
  /** The other relay of a mesh, on the same port under another path. */
  readonly second?: { publicKey: Buffer; path: string } | undefined;
  /** The shard that owns each key. */
  shardOf(keys: Buffer[]): Promise<number[]>;
  /** Wake-ups between shards that were lost since the start; only of derplane. */
  lostWakes?(): Promise<number>;
  stop(): Promise<void>;
}

export interface StartOptions {
  shards: number;
  /** As `taskset` takes them. */
  cores: string;
  tls: boolean;
  /** Two relays of a region in one process. */
  mesh: boolean;
}

/** Program and arguments of a relay as an operator starts it, on a port of 127.0.0.1. */
export type Command = (port: number, tls: boolean) => [program: string, args: string[]];

export interface Peer {
  readonly name: string;
  /** What the working tree is held against: its own faults fail no bench. */
  readonly reference?: boolean;
  /** Whether it has shards that a key's owner can be asked for. */
  readonly sharded: boolean;
  start(options: StartOptions): Promise<RunningRelay>;
  /** Undefined for what is no program of its own. */
  readonly command?: Command;
  /** Flags of the command with which its STUN answers every request. */
  readonly stunFlags?: readonly string[];
}

/** Version of tailscale.com that figures are held against. */
const GO_VERSION = '1.102.5';
export const START_TIMEOUT = 20_000;
const PROBE_INTERVAL = 20;
const goBin = fileURLToPath(new URL('../../.cache/go-bin/', import.meta.url));
const derper = join(goBin, 'derper');
/** Made by the relay where it is missing; a key of the bench only. */
const keyFile = join(goBin, 'bench.key');
const entry = (file: string) => fileURLToPath(new URL(file, import.meta.url));

/** The derplane that is built in a folder: its own relay program, so that only files of that folder run in the relay's process. */
export function derplaneIn(root: string, name: string): Peer {
  const relay = join(root, 'bench/dist/relay.js');
  const cli = join(root, 'dist/cli/main.js');
  return {
    name,
    sharded: true,
    start: (options) => startDerplane(name, relay, options),
    command: (port, tls) => [process.execPath, [cli, ...derperArgs(port, tls)]],
    // derper has no bound.
    stunFlags: ['-stun-rate', '0'],
  };
}

export const derplane: Peer = derplaneIn(fileURLToPath(new URL('../..', import.meta.url)), 'derplane');

/** What the machine allows: one native thread that does nothing but move packets. */
export const bare: Peer = {
  name: 'bare',
  sharded: false,
  start: ({ cores, tls }) =>
    startNode('bare', [entry('bare.js'), ...(tls ? [certificateFolder()] : [])], {
      shards: 1,
      cores,
      tls,
      mesh: false,
    }),
};

/** The Go relay, built when it is not there yet; undefined where there is no Go. */
export async function findGo(): Promise<Peer | undefined> {
  if (!existsSync(derper)) {
    if (spawnSync('go', ['version'], { stdio: 'ignore' }).status !== 0) return undefined;
    await promisify(execFile)('go', ['install', '-p', '2', `tailscale.com/cmd/derper@v${GO_VERSION}`], {
      env: { ...process.env, GOBIN: goBin, GOTOOLCHAIN: 'local' },
    });
  }
  return { name: 'go', sharded: false, start: startGo, command: goCommand };
}

function startDerplane(name: string, program: string, options: StartOptions): Promise<RunningRelay> {
  const { shards, mesh, tls } = options;
  const args: RelayArguments = { shards, mesh, ...(tls && { certificateFolder: certificateFolder() }) };
  return startNode(name, [program, JSON.stringify(args)], options);
}

/** A relay that is a Node program of the bench: says `RelayReady` first, then answers questions. */
async function startNode(name: string, args: string[], { shards, cores, tls }: StartOptions): Promise<RunningRelay> {
  const child = spawnPinned(cores, process.execPath, args, {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  try {
    const ready = await nextMessage<RelayReady>(child, name, START_TIMEOUT);
    return {
      pid: child.pid!,
      port: ready.port,
      tls,
      publicKey: Buffer.from(ready.publicKey),
      shards,
      second: ready.second && { publicKey: Buffer.from(ready.second.publicKey), path: ready.second.path },
      async shardOf(keys) {
        const answer = nextMessage<RelayAnswer>(child, name, START_TIMEOUT);
        child.send({ shardOf: keys } satisfies RelayQuestion);
        return (await answer).shards;
      },
      ...(name !== 'bare' && { lostWakes: () => askLostWakes(child, name) }),
      stop: () => stop(child),
    };
  } catch (error) {
    await stop(child);
    throw error;
  }
}

async function askLostWakes(child: ChildProcess, name: string): Promise<number> {
  const answer = nextMessage<RelayWakes>(child, name, START_TIMEOUT);
  child.send({ lostWakes: true } satisfies RelayQuestion);
  return (await answer).lostWakes;
}

function goCommand(port: number, tls: boolean): [string, string[]] {
  return [derper, derperArgs(port, tls)];
}

function derperArgs(port: number, tls: boolean): string[] {
  const args = ['-a', `127.0.0.1:${port}`, '-http-port=-1', '-stun=false', '-c', keyFile];
  if (tls) args.push('-certmode=manual', `-certdir=${certificateFolder()}`, `-hostname=${CERTIFICATE_HOST}`);
  return args;
}

async function startGo({ cores, tls }: StartOptions): Promise<RunningRelay> {
  const port = await freePort();
  const [program, args] = goCommand(port, tls);
  const child = spawnPinned(cores, program, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    // One core is what the relay gets; more threads than that only cost.
    env: { ...process.env, GOMAXPROCS: String(coreCount(cores)) },
  });
  const log = tailOfErrors(child);
  try {
    const publicKey = await probe(child, port, tls, log);
    return {
      pid: child.pid!,
      port,
      tls,
      publicKey,
      shards: 1,
      shardOf: async (keys) => keys.map(() => 0),
      stop: () => stop(child),
    };
  } catch (error) {
    await stop(child);
    throw error;
  }
}

/** Asks until the relay answers an upgrade; its answer says the public key. */
async function probe(child: ChildProcess, port: number, tls: boolean, log: () => string): Promise<Buffer> {
  const deadline = Date.now() + START_TIMEOUT;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`derper ended with exit code ${child.exitCode}: ${log()}`);
    const key = await upgradeKey(port, tls);
    if (key !== undefined) return key;
    if (Date.now() > deadline)
      throw new Error(`derper does not answer on port ${port} after ${START_TIMEOUT} ms: ${log()}`);
    await delay(PROBE_INTERVAL);
  }
}

/** Public key of the relay from the answer to an ordinary upgrade; undefined while nobody listens. */
function upgradeKey(port: number, tls: boolean): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const headers = { Connection: 'Upgrade', Upgrade: 'DERP' };
    const options = { host: '127.0.0.1', port, path: '/derp', headers };
    const request = tls ? getTls({ ...options, rejectUnauthorized: false }) : getPlain(options);
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(Buffer.from(String(response.headers['derp-public-key']), 'hex'));
    });
    request.on('response', (response) => {
      response.resume();
      resolve(undefined);
    });
    request.on('error', () => resolve(undefined));
  });
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Cores in a list such as `0,2-3`; all of them when nothing can be pinned. */
function coreCount(cores: string): number {
  const count = cores
    .split(',')
    .map((part) => part.split('-').map(Number))
    .reduce((sum, [first, last]) => sum + ((last ?? first!) - first! + 1), 0);
  return Math.min(count, availableParallelism());
}
