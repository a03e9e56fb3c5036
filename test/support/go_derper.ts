/**
 * The Go relay (`derper` of tailscale.com), built once into `.cache/go-bin` and started on a loopback port.
 *
 * Use {@link goDerperMissing} as the condition of `describe.skipIf`: it says why the relay cannot be had. With `CI=true` a missing Go
 * fails instead, so that CI never passes by skipping.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, connect as tcpConnect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { build, type GoProgram, pathOf, skipBecause, whyMissing } from './go_programs.js';

/** Version of tailscale.com that derplane is held against. */
export const GO_DERPER_VERSION = '1.102.5';

/** Time in milliseconds that a test file's `beforeAll` should allow: the first build takes a minute or more. */
export const GO_DERPER_TIMEOUT = 600_000;

const START_TIMEOUT = 30_000;
const PORT_ATTEMPTS = 5;
const derper: GoProgram = {
  name: 'derper',
  module: 'tailscale.com',
  version: GO_DERPER_VERSION,
  folder: 'cmd/derper',
  versionArgs: ['-version'],
};

/** Why the Go relay cannot be had, or `undefined` when it can. */
export const goDerperMissing: string | undefined = skipBecause(whyMissing([derper]));

/** Options of {@link startGoDerper}. */
export interface GoDerperOptions {
  /** Further flags, for instance `['-mesh-psk-file', path]`. */
  args?: string[];
  /** Port on 127.0.0.1; default: a free one. Give the old one to restart a relay in place. */
  port?: number;
  /** File of the relay's private key; default: a new one, removed by `close`. */
  keyFile?: string;
  /** Environment in addition to the caller's, for instance `{ GOMAXPROCS: '1' }`. */
  env?: Record<string, string>;
}

/** A running Go relay, serving plain HTTP. */
export interface GoDerper {
  /** `http://127.0.0.1:PORT/derp`. */
  readonly url: string;
  readonly port: number;
  readonly process: ChildProcess;
  /** What it logged so far. */
  log(): string;
  /** Ends the process and waits for it. Idempotent. */
  close(): Promise<void>;
}

/** Builds the Go relay where that has not been done yet. Resolves with the path of the program. */
export async function buildGoDerper(): Promise<string> {
  if (goDerperMissing !== undefined) throw new Error(goDerperMissing);
  await build([derper], GO_DERPER_TIMEOUT);
  return pathOf(derper);
}

/** Starts a Go relay; resolves once it answers. */
export async function startGoDerper(options: GoDerperOptions = {}): Promise<GoDerper> {
  const program = await buildGoDerper();
  for (let attempt = 1; ; attempt++) {
    const port = options.port ?? (await freePort());
    try {
      return await start(program, port, options);
    } catch (error) {
      const taken = (error as Error).message.includes('address already in use');
      if (!taken || options.port !== undefined || attempt === PORT_ATTEMPTS) throw error;
    }
  }
}

async function start(program: string, port: number, options: GoDerperOptions): Promise<GoDerper> {
  const folder = await mkdtemp(join(tmpdir(), 'derplane-go-derper-'));
  const keyFile = options.keyFile ?? join(folder, 'derper.key');
  const flags = ['-a', `127.0.0.1:${port}`, '-http-port=-1', '-stun=false', '-certmode', 'letsencrypt', '-c', keyFile];
  const child = spawn(program, [...flags, ...(options.args ?? [])], {
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const lines: string[] = [];
  createInterface({ input: child.stderr }).on('line', (line) => lines.push(line));
  const exited = once(child, 'close');
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= (async () => {
      child.kill('SIGKILL');
      await exited;
      await rm(folder, { recursive: true, force: true });
    })();
    return closing;
  };
  const failed = exited.then(() => {
    throw new Error(`go derper ended before it answered: ${lines.join('\n')}`);
  });
  try {
    await Promise.race([failed, untilAnswers(port)]);
  } catch (error) {
    await close();
    throw error;
  }
  failed.catch(() => undefined);
  return { url: `http://127.0.0.1:${port}/derp`, port, process: child, log: () => lines.join('\n'), close };
}

/** Resolves once something accepts on the port; derper has no event for it (it logs "serving on" before it listens). */
async function untilAnswers(port: number): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT;
  for (;;) {
    const socket = tcpConnect(port, '127.0.0.1');
    try {
      await once(socket, 'connect');
      return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    } finally {
      socket.destroy();
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port from the kernel');
  return address.port;
}
