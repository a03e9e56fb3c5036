/** A tailnet of real nodes: headscale, and `tailscaled` in user space, which needs no privileges in its namespace. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Network } from './network.js';
import type { Program } from './program.js';
import { program } from './programs.js';

const PORT = 8080;

/** Headscale on a host of the network. */
export class Headscale {
  readonly url: string;
  readonly #config: string;
  readonly #network: Network;
  readonly #host: string;

  private constructor(network: Network, host: string, config: string) {
    this.#network = network;
    this.#host = host;
    this.#config = config;
    this.url = `http://${network.address(host)}:${PORT}`;
  }

  /** Starts it with this DERP map and no other. */
  static async start(network: Network, host: string, folder: string, derpMap: string): Promise<Headscale> {
    await mkdir(folder);
    const config = join(folder, 'config.yaml');
    const map = join(folder, 'derp.yaml');
    const headscale = new Headscale(network, host, config);
    await writeFile(map, derpMap);
    // JSON is YAML.
    await writeFile(config, JSON.stringify(configuration(headscale.url, folder, map)));
    const serving = network.run(host, program('headscale'), ['--config', config, 'serve']);
    await serving.line(/listening and serving HTTP on/);
    await headscale.#command('users', 'create', 'tester');
    return headscale;
  }

  /** A key with which nodes may join. */
  async authKey(): Promise<string> {
    return (await this.#command('preauthkeys', 'create', '--user', '1', '--reusable')).trim().split('\n').at(-1)!;
  }

  #command(...args: string[]): Promise<string> {
    return this.#network.run(this.#host, program('headscale'), ['--config', this.#config, ...args]).succeeded();
  }
}

/** What of `tailscale status --json` is asked for. */
export interface NodeStatus {
  BackendState: string;
  Self: { Relay: string; TailscaleIPs: string[] };
  Peer: Record<string, { HostName: string; CurAddr: string; Relay: string; TailscaleIPs: string[] }> | null;
}

/** A Tailscale node on a host of the network. */
export class TailscaleNode {
  readonly name: string;
  readonly #network: Network;
  readonly #socket: string;

  private constructor(network: Network, name: string, socket: string) {
    this.#network = network;
    this.name = name;
    this.#socket = socket;
  }

  /** Starts it; it belongs to no tailnet yet. */
  static async start(network: Network, host: string, folder: string): Promise<TailscaleNode> {
    await mkdir(folder);
    const socket = join(folder, 'socket');
    const args = ['--tun=userspace-networking', '--statedir', folder, '--socket', socket, '--port', '0'];
    const env = { HOME: folder, TS_LOGS_DIR: folder, TS_NO_LOGS_NO_SUPPORT: '1', TS_DEBUG_ALWAYS_USE_DERP: '1' };
    await network.run(host, program('tailscaled'), args, env).line(/got LocalBackend/);
    return new TailscaleNode(network, host, socket);
  }

  /** Joins; resolves once the node is up. */
  async up(headscale: Headscale, authKey: string): Promise<void> {
    const args = ['up', '--login-server', headscale.url, '--auth-key', authKey, '--hostname', this.name];
    await this.command(...args, '--accept-dns=false').succeeded();
  }

  async status(): Promise<NodeStatus> {
    return JSON.parse(await this.command('status', '--json').succeeded()) as NodeStatus;
  }

  /** Its IPv4 address in the tailnet. */
  async address(): Promise<string> {
    return (await this.status()).Self.TailscaleIPs.find((address) => address.includes('.'))!;
  }

  /** Pings another node until it answers; resolves with the line that tells the way. */
  async ping(other: TailscaleNode): Promise<string> {
    // Pings until killed: a ping is lost as long as the other's home is not known.
    const ping = this.command('ping', '-c', '0', '--until-direct=false', await other.address());
    try {
      return await ping.line(/^pong/);
    } finally {
      await ping.kill();
    }
  }

  /** Runs a program on the node's host. */
  run(command: string, args: string[]): Program {
    return this.#network.run(this.name, command, args);
  }

  /** Starts `tailscale ARGS`. */
  command(...args: string[]): Program {
    return this.run(program('tailscale'), ['--socket', this.#socket, ...args]);
  }
}

function configuration(url: string, folder: string, map: string): object {
  return {
    server_url: url,
    listen_addr: `0.0.0.0:${PORT}`,
    metrics_listen_addr: '',
    grpc_listen_addr: '127.0.0.1:50443',
    noise: { private_key_path: join(folder, 'noise.key') },
    prefixes: { v4: '100.64.0.0/10', v6: 'fd7a:115c:a1e0::/48' },
    derp: { server: { enabled: false }, urls: [], paths: [map], auto_update_enabled: false },
    disable_check_updates: true,
    database: { type: 'sqlite', sqlite: { path: join(folder, 'db.sqlite') } },
    dns: { magic_dns: false, base_domain: 'e2e.test', override_local_dns: false },
    unix_socket: join(folder, 'socket'),
    log: { level: 'info' },
  };
}
