/** The relay's links to the other relays of its region: dialled here, handed to native code, and dialled again when they end. */
import type { Server as HttpServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { dialMesh } from '../client/dial_mesh.js';
import type { Trust } from '../client/dial_tls.js';
import type { RelayAddress } from '../client/relay_address.js';
import { DerpError } from '../errors.js';
import type { LimitedLog } from '../log_limit.js';
import type { ConnectionId, NativeRelay } from '../native.js';
import { watchConnsFrame } from '../protocol/frame.js';
import type { PrivateKey } from '../protocol/key.js';
import { MESH_DIAL_TIMEOUT, MESH_REPEAT_INTERVAL } from './defaults.js';
import { remoteOf, takeOver } from './takeover.js';

export interface MeshOptions {
  relay: NativeRelay;
  privateKey: PrivateKey;
  log: LimitedLog;
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
  /** Whether the other relay ended it. */
  byOther: boolean;
  /** Keys that were known over it. */
  peers: number;
}

/** A host and what the log was last told of it. */
class Target {
  readonly host: RelayAddress;
  readonly #log: LimitedLog;
  #trouble = '';
  #toldAt = 0;

  constructor(host: RelayAddress, log: LimitedLog) {
    this.host = host;
    this.#log = log;
  }

  info(message: string): void {
    this.#write('info', message);
  }

  /** Warns, the same thing only now and then. */
  warn(message: string): void {
    const now = performance.now();
    if (message === this.#trouble && now - this.#toldAt < MESH_REPEAT_INTERVAL) return;
    this.#trouble = message;
    this.#toldAt = now;
    this.#write('warn', message);
  }

  /** All is well: what goes wrong next is news. */
  recovered(): void {
    this.#trouble = '';
  }

  #write(level: 'info' | 'warn', message: string): void {
    const { name } = this.host;
    this.#log.log(level, `mesh ${name}`, {}, `mesh(${JSON.stringify(name)}): ${message}`);
  }
}

interface LiveLink {
  target: Target;
  /** Whether it lasted long enough to be reported. */
  isUp: boolean;
  ended: (end: LinkEnd) => void;
}

export class Mesh {
  readonly #options: MeshOptions;
  readonly #ending = new AbortController();
  readonly #live = new Map<ConnectionId, LiveLink>();
  readonly #running: Promise<void>[] = [];
  #waiting: RelayAddress[] = [];

  constructor(options: MeshOptions) {
    this.#options = options;
  }

  /** Keeps a link to `host` from now on. */
  add(host: RelayAddress): void {
    this.#running.push(this.#keepLink(new Target(host, this.#options.log)));
  }

  /** Keeps links to `hosts` from {@link begin} on: one of them may be this relay, which does not listen yet. */
  addLater(hosts: readonly RelayAddress[]): void {
    this.#waiting.push(...hosts);
  }

  /** This relay can be reached once somebody's server listens. Idempotent. */
  beginWith(httpServer: HttpServer): void {
    if (httpServer.listening) this.begin();
    else if (this.#waiting.length > 0) httpServer.once('listening', () => this.begin());
  }

  /** This relay can be reached. Idempotent. */
  begin(): void {
    for (const host of this.#waiting.splice(0)) this.add(host);
  }

  /** A link has been up for about a second, and brought so many keys. */
  linkUp(id: ConnectionId, peers: number): void {
    const link = this.#live.get(id);
    if (link === undefined) return;
    link.isUp = true;
    link.target.recovered();
    link.target.info(`connected; ${peers} peers`);
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
    const end = { reason: 'the relay was closed', byOther: false, peers: 0 };
    for (const id of [...this.#live.keys()]) this.connectionEnded(id, end);
    await Promise.all(this.#running);
  }

  /** Resolves when there is nothing to link to: the relay was closed, or the host is this relay. */
  async #keepLink(target: Target): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      try {
        const ended = await this.#link(target);
        if (!signal.aborted) ended();
      } catch (error) {
        if (error instanceof DerpError && error.code === 'ERR_DERP_SELF_CONNECT') {
          target.info('detected self-connect; ignoring host');
          return;
        }
        if (!signal.aborted) target.warn(`mesh connect: ${(error as Error).message}`);
      }
      // Closing ends the wait early, which the loop's condition then sees.
      await sleep(this.#options.retryInterval, undefined, { signal }).catch(() => {});
    }
  }

  /** Dials, hands the connection to its shard, and resolves when the link ends, with what tells of it; rejects when there is no link. */
  async #link(target: Target): Promise<() => void> {
    const { relay, privateKey, meshKey, trust } = this.#options;
    const { signal } = this.#ending;
    const { dialHost, url } = target.host;
    const dialling = { dialHost, timeout: MESH_DIAL_TIMEOUT, signal, trust };
    const { connection, unread, serverPublicKey } = await dialMesh(privateKey, meshKey(), url, dialling);
    const id = await takeOver(relay, connection, unread, remoteOf(connection), true);
    if (signal.aborted) {
      relay.discard(id);
      throw signal.reason;
    }
    relay.adoptLink(id, serverPublicKey.bytes, watchConnsFrame());
    return new Promise((resolve) => {
      const link: LiveLink = { target, isUp: false, ended: (end) => resolve(() => tellEnd(link, end)) };
      this.#live.set(id, link);
    });
  }
}

/**
 * A relay takes any client with a well-formed mesh key in, and ends the connection of one with another key than its own when that asks to
 * watch; with the right key the first thing that it sends is that we are there.
 */
function tellEnd({ target, isUp }: LiveLink, { reason, byOther, peers }: LinkEnd): void {
  if (byOther && !isUp && peers === 0) {
    target.warn(`Recv: ${reason} at once: it does not accept our mesh key; check -mesh-psk-file (mesh.key) on both`);
    return;
  }
  if (peers > 0) target.info(`reconnected; clearing ${peers} forwarding mappings`);
  target.warn(`Recv: ${reason}`);
}
