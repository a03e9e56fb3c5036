/** The relay under test, as an operator runs it: the command, port 443, a certificate from files. */
import { isIP } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildGoDerper } from '../support/go_derper.js';
import type { Network } from './network.js';
import type { Program } from './program.js';

/** `E2E_RELAY=derper` runs the suite on Tailscale's own relay instead, to tell whose fault a failure is. */
export const kind = process.env.E2E_RELAY ?? 'derplane';
/** Tailscale's relay of the newest version, for a relay beside the one under test. */
export const NEWEST_DERPER = 'derper-newest';
/** Code of the region in the DERP map that the relay prints. */
export const REGION = 'custom';

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
  /** Default: {@link kind}. */
  kind?: string;
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
    const program = this.#options.kind ?? kind;
    const flags = ['-a', ':443', '-http-port', '-1', '-stun=false', '-c', join(folder, `${host}.key`)];
    flags.push('-certmode', 'manual', '-certdir', join(folder, 'certs'), '-hostname', hostname, ...args);
    this.#program = network.run(host, ...(await command(program, flags)), env);
    await this.#program.line(/derper: serving on/);
  }

  /** The DERP map for headscale, YAML, which a relay with an IP address for its name prints. */
  async headscaleMap(): Promise<string> {
    const program = this.#running();
    if (kind === 'derper') {
      const hint = await program.line(/"CertName":"/);
      return regionOf(this.#options.hostname, hint.match(/"CertName":"(sha256-raw:[0-9a-f]{64})"/)![1]!);
    }
    await program.line(/^ +stunport:/); // its last
    const lines = program.output().split('\n');
    const map = lines.slice(lines.indexOf('regions:') + 1).filter((line) => line.startsWith('  '));
    return `regions:\n${map.join('\n')}\n`;
  }

  /** Resolves once it has had a mesh link to `host`, and `count - 1` before. */
  async linked(host: string, count = 1): Promise<void> {
    const name = host.replace(/[.[\]]/g, '\\$&');
    await this.#running().line(new RegExp(`mesh\\(\\\\?"${name}\\\\?"\\): connected`), count);
  }

  /** Resolves once it has written a line that contains `text`. */
  async line(text: string): Promise<void> {
    await this.#running().line(new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')));
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

async function command(program: string, flags: string[]): Promise<[string, string[]]> {
  if (program === 'derplane') return [process.execPath, [main, ...flags]];
  if (program === 'derper') return [await buildGoDerper(), flags];
  if (program === NEWEST_DERPER) return [await buildGoDerper(true), flags];
  throw new Error(`E2E_RELAY=${program}: needs derplane or derper`);
}

/** The region of a relay that prints no map for headscale. */
function regionOf(ipv4: string, certname: string): string {
  const node = { name: REGION, regionid: 900, hostname: ipv4, ipv4, certname, stunport: -1 };
  // JSON is YAML, but for whole numbers as keys.
  const region = { regionid: 900, regioncode: REGION, regionname: REGION, nodes: [node] };
  return `regions:\n  900: ${JSON.stringify(region)}\n`;
}
