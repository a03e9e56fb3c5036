/**
 * The Go relay (`derper` of tailscale.com), built once into `.cache/go-bin` and started on a loopback port.
 *
 * Use {@link goDerperMissing} as the condition of `describe.skipIf`: it says why the relay cannot be had. With `CI=true` a missing Go
 * fails instead, so that CI never passes by skipping.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, type GoProgram, pathOf, skipBecause, whyMissing } from './go_programs.js';
import { LineWatch } from './line_watch.js';
import { freePort, isListening } from './ports.js';

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
};

/** A program of the version that derplane is a drop-in for. Its own requirements name versions that not every proxy has. */
export const newestOf = (command: string): GoProgram => ({
  name: `${command}-newest`,
  module: 'tailscale.com',
  version: '1.104.5',
  folder: `cmd/${command}`,
  toolchain: 'go1.27.3',
  replace: [
    'github.com/tailscale/setec => github.com/tailscale/setec v0.0.0-20251203133219-2ab774e4129a',
    'gvisor.dev/gvisor => gvisor.dev/gvisor v0.0.0-20260224225140-573d5e7127a8',
  ],
});

const newestDerper = newestOf('derper');

/** Why the Go relay is unavailable, or `undefined`. */
export const goDerperMissing: string | undefined = skipBecause(whyMissing([derper]));

/** Why the newest derper is unavailable, or `undefined`. Asks for its toolchain, which Go may have to fetch. */
export function newestDerperMissing(): string | undefined {
  return skipBecause(whyMissing([newestDerper]));
}

/** Options of {@link startGoDerper}. */
export interface GoDerperOptions {
  /** Whether it is the newest version. Default: {@link GO_DERPER_VERSION}. */
  newest?: boolean;
  /** Further flags, for instance `['-mesh-psk-file', path]`. */
  args?: string[];
  /** Loopback address; default: 127.0.0.1. */
  address?: string;
  /** Port; default: a free one. Give the old one to restart a relay in place. */
  port?: number;
  /** Name that it serves TLS for, with `NAME.crt` and `NAME.key` of a folder; default: it serves plain HTTP. */
  tls?: { hostname: string; folder: string };
  /** File of the relay's private key; default: a new one, removed by `close`. */
  keyFile?: string;
  /** Environment in addition to the caller's, for instance `{ GOMAXPROCS: '1' }`. */
  env?: Record<string, string>;
}

/** A running Go relay. */
export interface GoDerper {
  /** `http://127.0.0.1:PORT/derp`; with TLS `https://HOSTNAME:PORT/derp`. */
  readonly url: string;
  readonly port: number;
  readonly process: ChildProcess;
  /** What it logged so far. */
  log(): string;
  /** Ends the process and waits for it. Idempotent. */
  close(): Promise<void>;
}

/** Builds the Go relay where that has not been done yet. Resolves with the path of the program. */
export async function buildGoDerper(newest = false): Promise<string> {
  const missing = newest ? newestDerperMissing() : goDerperMissing;
  if (missing !== undefined) throw new Error(missing);
  const program = newest ? newestDerper : derper;
  await build([program], GO_DERPER_TIMEOUT);
  return pathOf(program);
}

/** Starts a Go relay; resolves once it answers. */
export async function startGoDerper(options: GoDerperOptions = {}): Promise<GoDerper> {
  const program = await buildGoDerper(options.newest);
  for (let attempt = 1; ; attempt++) {
    const port = options.port ?? (await freePort(options.address));
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
  const { address = '127.0.0.1', tls } = options;
  const certificates =
    tls === undefined
      ? ['-certmode=letsencrypt']
      : ['-certmode=manual', '-certdir', tls.folder, '-hostname', tls.hostname];
  const flags = ['-a', `${address}:${port}`, '-http-port=-1', '-stun=false', ...certificates, '-c', keyFile];
  const child = spawn(program, [...flags, ...(options.args ?? [])], {
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const lines = new LineWatch('go derper', child.stderr);
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
    throw new Error(`go derper ended before it answered: ${lines.all()}`);
  });
  try {
    await Promise.race([failed, untilAnswers(address, port)]);
  } catch (error) {
    await close();
    throw error;
  }
  failed.catch(() => undefined);
  const url = tls === undefined ? `http://${address}:${port}/derp` : `https://${tls.hostname}:${port}/derp`;
  return { url, port, process: child, log: () => lines.all(), close };
}

/** Resolves once something accepts on the port; derper has no event for it (it logs "serving on" before it listens). */
async function untilAnswers(address: string, port: number): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT;
  while (!(await isListening(port, address))) {
    if (Date.now() > deadline) throw new Error(`go derper does not listen after ${START_TIMEOUT / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
