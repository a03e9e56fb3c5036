/** Runs Pebble, Let's Encrypt's ACME server for tests, and the DNS server that goes with it. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeCertificate } from './certificates.js';
import { build, type GoProgram, pathOf, skipBecause, whyMissing } from './go_programs.js';
import { LineWatch } from './line_watch.js';
import { freePorts, isListening } from './ports.js';

const [PEBBLE, DNS] = ['pebble', 'pebble-challtestsrv'].map((name) => ({
  name,
  module: 'github.com/letsencrypt/pebble/v2',
  version: '2.8.0',
  folder: `cmd/${name}`,
})) as [GoProgram, GoProgram];

/** Milliseconds that a first build may take, downloads included. */
export const BUILD_TIMEOUT = 600_000;

/** Starts that may fail because somebody took a port first. */
const STARTS = 5;

/** Why Pebble cannot be had, or `undefined`. With `CI=true` that is an error. */
export const pebbleMissing: string | undefined = skipBecause(whyMissing([PEBBLE, DNS]));

export const EAB = { kid: 'kid-1', key: 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W' };

export interface PebbleOptions {
  /** Port at which HTTP-01 finds names. */
  httpPort: number;
  /** Port at which TLS-ALPN-01 finds names. */
  tlsPort: number;
  /** Percentage of good nonces that are refused. */
  nonceReject?: number;
  /** Whether accounts need the binding `EAB`. */
  requireEab?: boolean;
  /** Seconds that certificates are valid, by profile. */
  profiles?: Record<string, number>;
  blockedDomains?: string[];
  /** Where the root of Pebble's own TLS certificate is put too. */
  rootFile?: string;
}

export interface Pebble {
  /** URL of the directory. */
  readonly directory: string;
  /** File with the root of Pebble's own TLS certificate. */
  readonly rootFile: string;
  /** Lets DNS fail for `name`. */
  failDns(name: string): Promise<void>;
  /** What it logged so far. */
  log(): string;
  close(): Promise<void>;
}

/** Builds the programs, unless that was done before. */
export async function buildPebble(): Promise<void> {
  await build([PEBBLE, DNS], BUILD_TIMEOUT);
}

/** Starts both programs. All names lead to 127.0.0.1. */
export async function startPebble(options: PebbleOptions): Promise<Pebble> {
  for (let tries = 1; ; tries++) {
    try {
      return await tryStart(options);
    } catch (error) {
      if (tries === STARTS || !/address already in use/.test((error as Error).message)) throw error;
    }
  }
}

async function tryStart(options: PebbleOptions): Promise<Pebble> {
  const [apiPort, managementPort, dnsPort, dnsManagementPort] = (await freePorts(4)) as [
    number,
    number,
    number,
    number,
  ];
  const folder = await mkdtemp(join(tmpdir(), 'derplane-pebble-'));
  const certificate = await makeServerCertificate(folder);
  if (options.rootFile !== undefined) await copyFile(certificate.cert, options.rootFile);
  await writeFile(join(folder, 'config.json'), config(options, certificate, apiPort, managementPort));
  const dns = new Program(DNS, dnsFlags(dnsPort, dnsManagementPort), {});
  const server = new Program(
    PEBBLE,
    ['-config', join(folder, 'config.json'), '-dnsserver', `127.0.0.1:${dnsPort}`, '-strict'],
    {
      PEBBLE_VA_NOSLEEP: '1',
      PEBBLE_WFE_NONCEREJECT: `${options.nonceReject ?? 0}`,
      PEBBLE_AUTHZREUSE: '0',
    },
  );
  const close = async () => {
    await Promise.all([dns.kill(), server.kill()]);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await Promise.all([dns.answers(dnsManagementPort), dns.answers(dnsPort), server.answers(apiPort)]);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    directory: `https://localhost:${apiPort}/dir`,
    rootFile: certificate.cert,
    failDns: async (name) => {
      const body = JSON.stringify({ host: `${name}.` });
      const { status } = await fetch(`http://127.0.0.1:${dnsManagementPort}/set-servfail`, { method: 'POST', body });
      if (status !== 200) throw new Error(`pebble-challtestsrv: /set-servfail: HTTP status ${status}`);
    },
    log: () => server.lines.all(),
    close,
  };
}

class Program {
  readonly lines: LineWatch;
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #ended: Promise<unknown>;

  constructor(program: GoProgram, flags: string[], env: Record<string, string>) {
    this.#child = spawn(pathOf(program), flags, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.lines = new LineWatch(program.name, this.#child.stdout, this.#child.stderr);
    this.#ended = once(this.#child, 'close');
  }

  /** Resolves once somebody listens on the port; rejects when the program ended instead. */
  async answers(port: number): Promise<void> {
    while (!(await isListening(port))) {
      if (this.#child.exitCode !== null) throw new Error(`${this.#child.spawnfile} ended: ${this.lines.all()}`);
      await sleep(20);
    }
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

function dnsFlags(port: number, managementPort: number): string[] {
  const off = ['http01', 'https01', 'doh', 'tlsalpn01'].map((name) => `-${name}=`);
  return [...off, `-dns01=127.0.0.1:${port}`, `-management=127.0.0.1:${managementPort}`, '-defaultIPv6='];
}

function config(
  { httpPort, tlsPort, requireEab = false, blockedDomains = [], profiles = {} }: PebbleOptions,
  { cert, key }: { cert: string; key: string },
  apiPort: number,
  managementPort: number,
): string {
  const valid = { default: 7_776_000, shortlived: 518_400, ...profiles };
  return JSON.stringify({
    pebble: {
      listenAddress: `127.0.0.1:${apiPort}`,
      managementListenAddress: `127.0.0.1:${managementPort}`,
      certificate: cert,
      privateKey: key,
      httpPort,
      tlsPort,
      externalAccountBindingRequired: requireEab,
      externalAccountMACKeys: { [EAB.kid]: EAB.key },
      domainBlocklist: blockedDomains,
      profiles: Object.fromEntries(
        Object.entries(valid).map(([name, validityPeriod]) => [name, { description: name, validityPeriod }]),
      ),
    },
  });
}

/** A self-signed certificate for localhost, which is its own root. */
async function makeServerCertificate(folder: string): Promise<{ cert: string; key: string }> {
  const files = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
  const { cert, keyPem } = await makeCertificate({ names: ['localhost', '127.0.0.1'] });
  await Promise.all([writeFile(files.cert, cert), writeFile(files.key, keyPem)]);
  return files;
}
