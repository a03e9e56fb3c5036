/** The relay's links to the other relays of its region: dialled here, handed to native code, and dialled again when they end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { dialMesh } from '../client/dial_mesh.js';
import type { Trust } from '../client/dial_tls.js';
import { DerpError } from '../errors.js';
import type { Logger } from '../log.js';
import type { ConnectionId, NativeRelay } from '../native.js';
import { watchConnsFrame } from '../protocol/frame.js';
import type { PrivateKey } from '../protocol/key.js';
import { MESH_DIAL_TIMEOUT } from './defaults.js';
import type { MeshHost } from './mesh_host.js';
import { remoteOf, takeOver } from './takeover.js';

export interface MeshOptions {
  relay: NativeRelay;
  privateKey: PrivateKey;
  logger: Logger;
  /** Milliseconds between the end of a link, or an attempt that failed, and the next attempt. */
  retryInterval: number;
  /** Whom to believe over TLS. */
  trust: Trust;
  /** The mesh key of the moment. */
  meshKey: () => string;
}

/** How a link ended. */
interface LinkEnd {
  /** In words. */
  reason: string;
  /** Keys that were known over it. */
  peers: number;
}

export class Mesh {
  readonly #options: MeshOptions;
  readonly #ending = new AbortController();
  readonly #live = new Map<ConnectionId, { host: MeshHost; ended: (end: LinkEnd) => void }>();
  readonly #running: Promise<void>[] = [];

  constructor(options: MeshOptions) {
    this.#options = options;
  }

  /** Keeps a link to `host` from now on. */
  add(host: MeshHost): void {
    this.#running.push(this.#keepLink(host));
  }

  /** A link has been up for about a second, and brought so many keys. */
  linkUp(id: ConnectionId, peers: number): void {
    const link = this.#live.get(id);
    if (link !== undefined) this.#info(link.host, `connected; ${peers} peers`);
  }

  /** Takes the end of a connection, if it is that of a link. */
  connectionEnded(id: ConnectionId, end: LinkEnd): boolean {
    const link = this.#live.get(id);
    this.#live.delete(id);
    link?.ended(end);
    return link !== undefined;
  }

  /** No more attempts and redials; links that are up are the shards' to close. Resolves when no attempt is under way. Idempotent. */
  async close(): Promise<void> {
    this.#ending.abort(new DerpError('ERR_DERP_CLOSED', 'the relay was closed'));
    for (const id of [...this.#live.keys()]) this.connectionEnded(id, { reason: 'the relay was closed', peers: 0 });
    await Promise.all(this.#running);
  }

  /** Resolves when there is nothing to link to: the relay was closed, or the host is this relay. */
  async #keepLink(host: MeshHost): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      try {
        this.#ended(host, await this.#link(host));
      } catch (error) {
        if (error instanceof DerpError && error.code === 'ERR_DERP_SELF_CONNECT') {
          this.#info(host, 'detected self-connect; ignoring host');
          return;
        }
        if (!signal.aborted) this.#warn(host, `mesh connect: ${(error as Error).message}`);
      }
      // Closing ends the wait early, which the loop's condition then sees.
      await sleep(this.#options.retryInterval, undefined, { signal }).catch(() => {});
    }
  }

  /** Dials, hands the connection to its shard, and resolves with the link's end; rejects when there is no link to be had. */
  async #link(host: MeshHost): Promise<LinkEnd> {
    const { relay, privateKey, meshKey, trust } = this.#options;
    const { signal } = this.#ending;
    const dialling = { dialHost: host.dialHost, timeout: MESH_DIAL_TIMEOUT, signal, trust };
    const { connection, unread, serverPublicKey } = await dialMesh(privateKey, meshKey(), host.url, dialling);
    const id = await takeOver(relay, connection, unread, remoteOf(connection), true);
    if (signal.aborted) {
      relay.discard(id);
      throw signal.reason;
    }
    relay.adoptLink(id, serverPublicKey.bytes, watchConnsFrame());
    return new Promise((ended) => this.#live.set(id, { host, ended }));
  }

  #ended(host: MeshHost, { reason, peers }: LinkEnd): void {
    if (this.#ending.signal.aborted) return;
    if (peers > 0) this.#info(host, `reconnected; clearing ${peers} forwarding mappings`);
    this.#warn(host, `Recv: ${reason}`);
  }

  #info(host: MeshHost, message: string): void {
    this.#options.logger.info({}, `mesh(${JSON.stringify(host.name)}): ${message}`);
  }

  #warn(host: MeshHost, message: string): void {
    this.#options.logger.warn({}, `mesh(${JSON.stringify(host.name)}): ${message}`);
  }
}
