/** Relays of one region, with one mesh key. */
import { createPageServer, PrivateKey, Server, type ServerOptions, type TlsContext } from 'derplane';
import { LogWatch } from './log_watch.js';

/** The mesh key of the region. */
export const MESH_KEY = 'a7'.repeat(32);

/** One relay of the region, which can be ended and started again on its port. */
export class RegionRelay {
  readonly key = PrivateKey.generate();
  readonly #shards: number;
  readonly address: string;
  server!: Server;
  log!: LogWatch;
  port = 0;

  constructor(shards: number, address: string) {
    this.#shards = shards;
    this.address = address;
  }

  async start(hosts: string[] = [], more: ServerOptions = {}, tls?: TlsContext): Promise<void> {
    this.log = new LogWatch();
    this.server = new Server(this.key, {
      shards: this.#shards,
      handshake: { threads: 1 },
      logger: this.log,
      ...more,
      mesh: { key: MESH_KEY, retryInterval: 20, with: hosts, ...more.mesh },
    });
    const listening = { host: this.address, port: this.port, httpServer: createPageServer() };
    this.port = (await this.server.listen(tls === undefined ? listening : { ...listening, tls })).port;
  }

  figure(...path: string[]): number {
    return Number(
      path.reduce<unknown>((value, name) => (value as Record<string, unknown>)[name], this.server.expVar()),
    );
  }
}
