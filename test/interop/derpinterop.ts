/** Builds and runs `derpinterop`, the program in Go that drives a relay with Tailscale's own client, or is Tailscale's own relay. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { buildOwn, skipBecause, whyNoGo } from '../support/go_programs.js';

let program: string;

/** Milliseconds that a first build may take, downloads included. */
export const BUILD_TIMEOUT = 600_000;

/** Milliseconds that one check may take. */
const CHECK_TIMEOUT = 120_000;

/** Why the program cannot be built, or `undefined`. With `CI=true` a missing Go is an error. */
export const goMissing: string | undefined = skipBecause(whyNoGo());

export interface CheckOptions {
  url: string;
  /** URLs of the region's other relays. */
  others?: string[];
  /** Identities to use first, as `privkey:` texts. */
  keys?: string[];
  meshKey?: string;
  /** HostName and CertName of the relay in a DERP map. */
  hostName?: string;
  certName?: string;
  /** File with the DERP map that the relay printed. */
  derpMap?: string;
  /** Comma list of `IP:PORT` of STUN servers. */
  stun?: string;
  /** PEM file of further roots to trust. */
  trust?: string;
}

/** Builds the program; Go's own cache makes this quick when nothing changed. */
export async function buildDerpinterop(): Promise<void> {
  program = await buildOwn('derpinterop', BUILD_TIMEOUT);
}

/** Runs one check; rejects with what the program said when it failed. */
export async function runCheck(check: string, options: CheckOptions): Promise<void> {
  const flags = ['-url', options.url];
  if (options.others) flags.push('-others', options.others.join(','));
  if (options.keys) flags.push('-keys', options.keys.join(','));
  if (options.meshKey !== undefined) flags.push('-mesh-key', options.meshKey);
  if (options.hostName !== undefined) flags.push('-host-name', options.hostName);
  if (options.certName !== undefined) flags.push('-cert-name', options.certName);
  if (options.derpMap !== undefined) flags.push('-derp-map', options.derpMap);
  if (options.stun !== undefined) flags.push('-stun', options.stun);
  const env = options.trust === undefined ? process.env : { ...process.env, SSL_CERT_FILE: options.trust };
  try {
    await promisify(execFile)(program, [...flags, check], { env, timeout: CHECK_TIMEOUT });
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as Error & { stdout?: string; stderr?: string };
    throw new Error(`${check}: ${stdout.trim() || stderr.trim() || message}`);
  }
}

/** Tailscale's own relay, over plain HTTP, with links to others of its region. */
export interface GoRelay {
  readonly url: string;
  /** `nodekey:` and 64 hexadecimal digits. */
  readonly publicKey: string;
  /** Keeps a link to the relay at `url` from now on. */
  mesh(url: string): Promise<void>;
  /** Rejects with what the relay's own check finds wrong. */
  consistencyCheck(): Promise<void>;
  /** The relay's expvar `derp`. */
  vars(): Promise<Record<string, unknown>>;
  /** What it logged so far. */
  log(): string;
  /** Kills it and waits for its end. */
  close(): Promise<void>;
}

/** Starts Tailscale's relay on `listen` (`host:port`, port 0 takes a free one). `key` is a `privkey:` text. */
export async function startGoRelay(listen: string, meshKey: string, key: string): Promise<GoRelay> {
  const child = spawn(program, ['-listen', listen, '-mesh-key', meshKey, '-keys', key, 'relay']);
  let log = '';
  child.stderr.on('data', (chunk) => {
    log += chunk;
  });
  const closed = once(child, 'close');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const nextLine = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`the Go relay ended: ${log}`);
    return value;
  };
  const { url, publicKey } = JSON.parse(await nextLine()) as { url: string; publicKey: string };
  const obey = (command: string) => {
    child.stdin.write(`${command}\n`);
    return nextLine();
  };
  const expectOk = async (command: string) => {
    const answer = await obey(command);
    if (answer !== 'ok') throw new Error(`Go relay, ${command}: ${answer}`);
  };
  return {
    url,
    publicKey,
    mesh: (other) => expectOk(`mesh ${other}`),
    consistencyCheck: () => expectOk('check'),
    vars: async () => JSON.parse(await obey('vars')),
    log: () => log,
    close: async () => {
      child.kill('SIGKILL');
      await closed;
    },
  };
}
