/** The relay under test, as an operator runs it: the command, port 443, a certificate from files. */
import { isIP } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildGoDerper } from '../support/go_derper.js';
import type { Network } from './network.js';
import type { Program } from './program.js';

/** `E2E_RELAY=derper` runs the suite on Tailscale's own relay instead, to tell whose fault a failure is. */
export const kind = process.env.E2E_RELAY ?? 'derplane';
const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const checker = fileURLToPath(new URL('guests/check.js', import.meta.url));

export interface RelayOptions {
  network: Network;
  host: string;
  /** Name in its certificate; an IP address has it make one. */
  hostname: string;
  /** Where its key and its certificates are, and stay when it is started again. */
  folder: string;
  /** Further flags. */
  args?: string[];
  env?: NodeJS.ProcessEnv;
}

export class Relay {
  readonly #options: RelayOptions;
  #program: Program | undefined;

  constructor(options: RelayOptions) {
    this.#options = options;
  }

  /** Starts it, again after a kill; resolves once it serves. */
  async start(): Promise<void> {
    const { network, host, hostname, folder, args = [], env } = this.#options;
    const flags = ['-a', ':443', '-http-port', '-1', '-stun=false', '-c', join(folder, `${host}.key`)];
    flags.push('-certmode', 'manual', '-certdir', join(folder, 'certs'), '-hostname', hostname, ...args);
    this.#program = network.run(host, ...(await command(flags)), env);
    await this.#program.line(/derper: serving on/);
  }

  /** The pin of its own certificate, which it prints for an IP address: `sha256-raw:` and hexadecimal digits. */
  async pin(): Promise<string> {
    const hint = await this.#running().line(/"CertName":"/);
    return hint.match(/"CertName":"(sha256-raw:[0-9a-f]{64})"/)![1]!;
  }

  /** Resolves once it has a mesh link to `host`. */
  async linked(host: string): Promise<void> {
    await this.#running().line(new RegExp(`mesh\\(\\\\?"${host}\\\\?"\\): connected`));
  }

  /** Kills it as a crash would. */
  async kill(): Promise<void> {
    await this.#running().kill();
  }

  /** Rejects with what the relay's own check finds wrong. */
  async consistencyCheck(): Promise<void> {
    const { network, host, hostname } = this.#options;
    const args = isIP(hostname) ? [checker] : [checker, hostname];
    await network.run(host, process.execPath, args).succeeded();
  }

  #running(): Program {
    if (this.#program === undefined) throw new Error(`the relay on ${this.#options.host} was not started`);
    return this.#program;
  }
}

async function command(flags: string[]): Promise<[string, string[]]> {
  if (kind === 'derplane') return [process.execPath, [main, ...flags]];
  if (kind === 'derper') return [await buildGoDerper(), flags];
  throw new Error(`E2E_RELAY=${kind}: needs derplane or derper`);
}
