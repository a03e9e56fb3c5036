/** The relay's links to the other relays of its region: dialled here, handed to native code, and dialled again when they end. */
import type { Server as HttpServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { dialMesh, type MeshConnection } from '../client/dial_mesh.js';
import type { Trust } from '../client/dial_tls.js';
import type { RelayAddress } from '../client/relay_address.js';
import { DerpError } from '../errors.js';
import type { LimitedLog } from '../log_limit.js';
import type { ConnectionId, NativeRelay } from '../native.js';
import { watchConnsFrame } from '../protocol/frame.js';
import type { PrivateKey, PublicKey } from '../protocol/key.js';
import { MESH_DIAL_TIMEOUT } from './defaults.js';
import type { Tell } from './events.js';
import { MeshDns } from './mesh_dns.js';
import { isMeshName, type MeshName } from './mesh_host.js';
import { MeshTarget } from './mesh_target.js';
import type { MeshPeer } from './options.js';
import { remoteOf, takeOver } from './takeover.js';

export interface MeshOptions {
  relay: NativeRelay;
  privateKey: PrivateKey;
  log: LimitedLog;
  /** Milliseconds; the longest wait before a link is dialled again. */
  retryInterval: number;
  /** Milliseconds from one DNS lookup of a name to the next. */
  dnsInterval: number;
  /** Calls the listeners of the server. */
  tell: Tell;
  /** Trusted certificates for TLS. */
  trust: Trust;
  /** The current mesh key. */
  meshKey: () => string;
}

/** How a link ended. */
interface LinkEnd {
  /** The reason in words. */
  reason: string;
  /** Whether the other relay ended it. */
  byOther: boolean;
  /** Keys learned over the link. */
  peers: number;
}

interface LiveLink {
  target: MeshTarget;
  /** The other relay's. */
  key: PublicKey;
  ended: (end: LinkEnd) => void;
}

export class Mesh {
  readonly #options: MeshOptions;
  readonly #live = new Map<ConnectionId, LiveLink>();
  /** What is linked to, until its last attempt has ended. */
  readonly #running = new Map<MeshTarget, Promise<void>>();
  readonly #names = new Set<MeshDns>();
  #waiting: (RelayAddress | MeshName)[] = [];
  /** Servers that this relay is attached to and whose listening it waits for. */
  readonly #awaited = new Set<HttpServer>();
  /** Why all links ended. */
  #closed: DerpError | undefined;

  constructor(options: MeshOptions) {
    this.#options = options;
  }

  /** Keeps a link to a relay, or to each relay behind a DNS name, from now on. */
  add(entry: RelayAddress | MeshName): MeshPeer {
    return isMeshName(entry) ? this.#follow(entry) : this.#keep(entry);
  }

  #follow(name: MeshName): MeshPeer {
    const { log, dnsInterval } = this.#options;
    const keys = new Map<string, MeshTarget>();
    const peer = new MeshDns(name, { interval: dnsInterval, log, link: (address) => this.#keep(address, keys) });
    const close = async () => {
      await peer.close();
      this.#names.delete(peer);
    };
    this.#names.add(peer);
    if (this.#closed !== undefined) void close();
    return peer;
  }

  /** @param siblings - links to other addresses of the same name, by the key of the relay there */
  #keep(host: RelayAddress, siblings = new Map<string, MeshTarget>()): MeshPeer {
    const target = new MeshTarget(host, this.#options, siblings);
    if (this.#closed !== undefined) target.ending.abort(this.#closed);
    const running = this.#keepLink(target).finally(() => this.#running.delete(target));
    this.#running.set(target, running);
    const close = () => this.#end(target);
    return {
      host: host.name,
      get isUp() {
        return target.isUp;
      },
      ready: target.ready.promise,
      close,
      [Symbol.asyncDispose]: close,
    };
  }

  /** Keeps links to `hosts` from {@link begin} on: one of them may be this relay, which does not listen yet. */
  addLater(hosts: readonly (RelayAddress | MeshName)[]): void {
    this.#waiting.push(...hosts);
  }

  /** This relay can be reached once somebody's server listens. Idempotent. */
  beginWith(httpServer: HttpServer): void {
    if (httpServer.listening) this.begin();
    else if (this.#waiting.length > 0 && !this.#awaited.has(httpServer)) {
      this.#awaited.add(httpServer);
      httpServer.once('listening', this.#onListening);
    }
  }

  /** This relay can be reached. Idempotent. */
  begin(): void {
    this.#forgetServers();
    for (const host of this.#waiting.splice(0)) this.add(host);
  }

  readonly #onListening = () => this.begin();

  #forgetServers(): void {
    for (const server of this.#awaited) server.off('listening', this.#onListening);
    this.#awaited.clear();
  }

  /** Handles a link that has been up for about a second and brought `peers` keys. */
  linkUp(id: ConnectionId, peers: number): void {
    const target = this.#live.get(id)?.target;
    if (target === undefined) return;
    target.isUp = true;
    target.recovered();
    target.info(`connected; ${peers} peers`);
    target.ready.resolve();
    this.#options.tell('meshLinkUp', { host: target.host.name, peers });
  }

  /** Handles the end of a connection if it was a link. */
  connectionEnded(id: ConnectionId, end: LinkEnd): boolean {
    const link = this.#live.get(id);
    this.#live.delete(id);
    link?.ended(end);
    return link !== undefined;
  }

  /** No more attempts and redials; links that are up are the shards' to close. Resolves when no attempt is in progress. Idempotent. */
  async close(): Promise<void> {
    this.#closed ??= new DerpError('ERR_DERP_CLOSED', 'the relay was closed');
    this.#forgetServers();
    const names = [...this.#names].map((name) => name.close());
    for (const target of this.#running.keys()) target.ending.abort(this.#closed);
    const end = { reason: this.#closed.message, byOther: false, peers: 0 };
    for (const id of [...this.#live.keys()]) this.connectionEnded(id, end);
    await Promise.all([...names, ...this.#running.values()]);
  }

  /** Ends a link for good; resolves when it has ended. */
  async #end(target: MeshTarget): Promise<void> {
    target.ending.abort(new DerpError('ERR_DERP_CLOSED', 'the mesh peer was closed'));
    for (const [id, link] of this.#live) {
      if (link.target === target) this.#options.relay.endLink(id, link.key.bytes);
    }
    await this.#running.get(target);
  }

  /** Resolves when the target is closed or turns out to be this relay. */
  async #keepLink(target: MeshTarget): Promise<void> {
    const { signal } = target.ending;
    while (!signal.aborted) {
      if (target.isShared) {
        await sleep(this.#options.dnsInterval, undefined, { signal }).catch(() => {});
        continue;
      }
      try {
        const ended = await this.#link(target);
        if (!signal.aborted) ended();
      } catch (error) {
        if (error instanceof DerpError && error.code === 'ERR_DERP_SELF_CONNECT') {
          target.info('detected self-connect; ignoring host');
          target.ready.reject(error);
          return;
        }
        if (!signal.aborted) target.warn(`mesh connect: ${(error as Error).message}`);
      }
      // Closing ends the wait early, which the loop's condition then sees.
      await sleep(target.redial.next(performance.now()), undefined, { signal }).catch(() => {});
    }
    target.ready.reject(signal.reason);
  }

  /** Dials and hands the connection to its shard. Resolves when the link ends, with a function that logs it; rejects if dialling fails. */
  async #link(target: MeshTarget): Promise<() => void> {
    const { privateKey, meshKey, trust } = this.#options;
    const { signal } = target.ending;
    const { dialHost, url } = target.host;
    const dialling = { dialHost, timeout: MESH_DIAL_TIMEOUT, signal, trust };
    const { connection, unread, serverPublicKey: key } = await dialMesh(privateKey, meshKey(), url, dialling);
    const { siblings } = target;
    const keyText = key.toString();
    target.sharedKey = keyText;
    const sibling = siblings.get(keyText);
    if (sibling !== undefined) {
      connection.destroy();
      return () => target.info(`is the same relay as ${sibling.host.name}; one link is enough`);
    }
    siblings.set(keyText, target);
    try {
      return await this.#carry(target, { connection, unread, serverPublicKey: key });
    } finally {
      siblings.delete(keyText);
    }
  }

  /** Hands a connection to its shard; resolves when the link ends, with a function that logs it. */
  async #carry(target: MeshTarget, { connection, unread, serverPublicKey: key }: MeshConnection): Promise<() => void> {
    const { relay } = this.#options;
    const { signal } = target.ending;
    const id = await takeOver(relay, connection, unread, remoteOf(connection), true);
    if (signal.aborted) {
      relay.discard(id);
      throw signal.reason;
    }
    relay.adoptLink(id, key.bytes, watchConnsFrame());
    const end = await new Promise<LinkEnd>((ended) => this.#live.set(id, { target, key, ended }));
    const wasUp = target.isUp;
    target.isUp = false;
    if (wasUp) this.#options.tell('meshLinkDown', { host: target.host.name, reason: end.reason });
    return () => tellEnd(target, wasUp, end);
  }
}

/**
 * A relay admits any client with a well-formed mesh key. If the key is wrong, it closes the connection when the client asks to watch.
 * With the right key, it first reports our own presence.
 */
function tellEnd(target: MeshTarget, isUp: boolean, { reason, byOther, peers }: LinkEnd): void {
  if (byOther && !isUp && peers === 0) {
    target.warn(`Recv: ${reason} at once: it does not accept our mesh key; check -mesh-psk-file (mesh.key) on both`);
    return;
  }
  if (peers > 0) target.info(`reconnected; clearing ${peers} forwarding mappings`);
  target.warn(`Recv: ${reason}`);
}
