/**
 * Hosts in network namespaces, joined by a bridge in a namespace of its own: nothing outside of them sees their packets, and they reach
 * nothing outside. Needs root.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { Program } from './program.js';

const PREFIX = 'derplane-e2e';
/** `ip netns exec` lays what is below NAME here over `/etc`. */
const ETC = '/etc/netns';
const SUBNET = '10.78.0';
const HUB = 'hub';

let networks = 0;

/** What a host may do. */
export interface HostOptions {
  /** Two hosts that are isolated cannot reach each other, only others. Default: false. */
  isolated?: boolean;
}

/** A network of named hosts. */
export class Network {
  readonly #id = `${PREFIX}-${process.pid}-${++networks}`;
  readonly #hosts: string[];
  readonly #nameserver: string | undefined;
  readonly #programs: Program[] = [];

  private constructor(hosts: string[], nameserver: string | undefined) {
    this.#hosts = hosts;
    this.#nameserver = nameserver;
  }

  /**
   * Makes the hosts; every host knows all names.
   * @param nameserver - the host that the others ask for other names. Default: none
   */
  static async create(hosts: Record<string, HostOptions>, nameserver?: string): Promise<Network> {
    await removeStale();
    const network = new Network(Object.keys(hosts), nameserver);
    try {
      await network.#build(hosts);
    } catch (error) {
      await network.close();
      throw error;
    }
    return network;
  }

  /** IPv4 address of a host. */
  address(host: string): string {
    const index = this.#hosts.indexOf(host);
    if (index < 0) throw new Error(`there is no host ${host}, but: ${this.#hosts.join(', ')}`);
    return `${SUBNET}.${index + 1}`;
  }

  /** Gives a host a second IPv4 address. */
  async addAddress(host: string): Promise<string> {
    const address = `${SUBNET}.${this.#hosts.indexOf(host) + 101}`;
    await ip('-n', this.#namespace(host), 'address', 'add', `${address}/24`, 'dev', 'eth0');
    return address;
  }

  /** Gives a host an IPv6 address, at once usable. */
  async addIpv6(host: string, address: string): Promise<void> {
    await ip('-n', this.#namespace(host), 'address', 'add', `${address}/64`, 'dev', 'eth0', 'nodad');
  }

  /** Runs a program on a host; it ends with this process at the latest. */
  run(host: string, command: string, args: string[], env: NodeJS.ProcessEnv = {}): Program {
    const inNamespace = ['netns', 'exec', this.#namespace(host), 'setpriv', '--pdeathsig', 'KILL', command, ...args];
    const child = spawn('ip', inNamespace, { env: { ...process.env, ...env }, stdio: 'pipe' });
    const program = new Program(`${command.replace(/.*\//, '')} on ${host}`, child);
    this.#programs.push(program);
    return program;
  }

  /** What the programs wrote that still run, or ended by themselves. */
  output(): string {
    return this.#programs.map((program) => `--- ${program.name}\n${program.output()}`).join('');
  }

  /** Kills the programs and removes the hosts. */
  async close(): Promise<void> {
    await Promise.all(this.#programs.map((program) => program.kill()));
    for (const host of [...this.#hosts, HUB]) await removeNamespace(this.#namespace(host));
  }

  #namespace(host: string): string {
    return `${this.#id}-${host}`;
  }

  async #build(hosts: Record<string, HostOptions>): Promise<void> {
    const hub = this.#namespace(HUB);
    await ip('netns', 'add', hub);
    await ip('-n', hub, 'link', 'add', 'bridge', 'type', 'bridge');
    await ip('-n', hub, 'link', 'set', 'bridge', 'up');
    const names = this.#hosts.map((host) => `${this.address(host)} ${host}\n`).join('');
    const resolvers = this.#nameserver === undefined ? '' : `nameserver ${this.address(this.#nameserver)}\n`;
    for (const [host, options] of Object.entries(hosts)) {
      const namespace = this.#namespace(host);
      const port = `port${this.#hosts.indexOf(host)}`;
      await mkdir(`${ETC}/${namespace}`, { recursive: true });
      await writeFile(`${ETC}/${namespace}/hosts`, `127.0.0.1 localhost\n${names}`);
      await writeFile(`${ETC}/${namespace}/resolv.conf`, resolvers);
      await ip('netns', 'add', namespace);
      await ip('-n', namespace, 'link', 'set', 'lo', 'up');
      await ip('-n', hub, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace);
      await ip('-n', hub, 'link', 'set', port, 'master', 'bridge', 'up');
      if (options.isolated) await ip('-n', hub, 'link', 'set', port, 'type', 'bridge_slave', 'isolated', 'on');
      await ip('-n', namespace, 'address', 'add', `${this.address(host)}/24`, 'dev', 'eth0');
      await ip('-n', namespace, 'link', 'set', 'eth0', 'up');
      // Tailscale takes a host without default route for offline.
      await ip('-n', namespace, 'route', 'add', 'default', 'via', `${SUBNET}.254`);
    }
  }
}

async function ip(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('ip', args);
  return stdout;
}

async function removeNamespace(name: string): Promise<void> {
  if (existsSync(`/run/netns/${name}`)) await ip('netns', 'del', name);
  await rm(`${ETC}/${name}`, { recursive: true, force: true });
  if (existsSync(ETC) && (await readdir(ETC)).length === 0) await rmdir(ETC);
}

/** Removes what runs left behind that were killed. */
async function removeStale(): Promise<void> {
  const stale = new RegExp(`^${PREFIX}-(\\d+)-`);
  const namespaces = existsSync('/run/netns') ? await readdir('/run/netns') : [];
  for (const name of namespaces) {
    const pid = name.match(stale)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) await removeNamespace(name);
  }
}
