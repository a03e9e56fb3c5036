/** Who is connected to a relay, kept up to date over reconnects: what a mesh of relays is made of. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Checks, checkFunction, checkLogger, checkOptions, checkSignal, integerIn, wrong } from '../checks.js';
import { guardedLogger, type Logger } from '../log.js';
import { LimitedLog } from '../log_limit.js';
import { checkPublicKey, type PublicKey } from '../protocol/key.js';
import { FLOOD_QUIET_TIME, FLOOD_WAIT, MAX_WATCHED_KEYS, TIMEOUT_RANGE, WATCH_RETRY_INTERVAL } from './defaults.js';
import { type PeerGoneMessage, PeerGoneReason, type PeerPresentMessage } from './messages.js';
import type { ReceivedDetail } from './relay_client.js';

/** Options of `RelayClient.runWatchConnectionLoop`. */
export interface WatchLoopOptions {
  /**
   * A client is connected to the relay. Called for every connection of a key, and again after each reconnect. Keys
   * beyond 1,048,576 are ignored.
   */
  add(peer: PeerPresentMessage): void;
  /** A key disconnected or, with reason `MESH_CONNECTION_BROKE`, the connection that reported it did. */
  remove(peer: PeerGoneMessage): void;
  /** The loop ends for good at a relay with this key. Default: the client's own public key. */
  ignoreServerKey?: PublicKey;
  /** Called with each failure to connect or receive; the loop goes on. */
  onError?(error: Error): void;
  /** Ends the loop, which closes the client. */
  signal?: AbortSignal;
  /** Milliseconds between attempts. Default: 5,000. */
  retryInterval?: number;
  /** Where the loop says what it does. Default: nowhere. */
  logger?: Logger;
}

const CHECKS: Checks<WatchLoopOptions> = {
  add: checkFunction,
  remove: checkFunction,
  ignoreServerKey: checkPublicKey,
  onError: checkFunction,
  signal: checkSignal,
  retryInterval: integerIn(TIMEOUT_RANGE),
  logger: checkLogger,
};

/** @throws DerpError `ERR_DERP_BAD_OPTION` */
export function checkWatchLoopOptions(options: unknown): asserts options is WatchLoopOptions {
  checkOptions<WatchLoopOptions>(options, 'options', CHECKS);
  for (const name of ['add', 'remove'] as const) {
    if (options[name] === undefined) wrong(name, undefined, 'a function');
  }
}

/** Why a watch loop ended: `self`, the relay has the key that was to be ignored; `closed`, the client was closed or the signal aborted. */
export type WatchLoopEnd = 'self' | 'closed';

/** What the loop needs of a `RelayClient`. */
export interface WatchingClient {
  readonly url: URL;
  readonly publicKey: PublicKey;
  readonly serverPublicKey: PublicKey | undefined;
  watchConnectionChanges(): Promise<void>;
  recvDetail(): Promise<ReceivedDetail>;
  close(): void;
}

/**
 * Runs until the client is closed, the signal aborted or the relay turns out to be the one to ignore; closes the client then.
 * @param ending - aborted when the client is closed
 */
export async function watchLoop(
  client: WatchingClient,
  ending: AbortSignal,
  options: WatchLoopOptions,
): Promise<WatchLoopEnd> {
  const { signal, retryInterval = WATCH_RETRY_INTERVAL, onError } = options;
  const loop = new WatchLoop(client, options);
  const close = () => client.close();
  signal?.addEventListener('abort', close);
  if (signal?.aborted) close();
  try {
    while (!ending.aborted) {
      try {
        if (await loop.connect()) return 'self';
        for (;;) await loop.step();
      } catch (error) {
        loop.disconnected();
        if (ending.aborted) break;
        loop.failed(error as Error);
        onError?.(error as Error);
      }
      // Closing ends the wait early, which the loop's condition then sees.
      await sleep(retryInterval, undefined, { signal: ending }).catch(() => {});
    }
    return 'closed';
  } finally {
    loop.disconnected();
    signal?.removeEventListener('abort', close);
    client.close();
  }
}

class WatchLoop {
  readonly #client: WatchingClient;
  readonly #options: WatchLoopOptions;
  readonly #log: LimitedLog;
  readonly #prefix: string;
  readonly #present = new Map<string, PublicKey>();
  #generation = 0;
  #floodEnd: NodeJS.Timeout | undefined;
  #connected = false;
  /** Of this connection. */
  #saidTooMany = false;

  constructor(client: WatchingClient, options: WatchLoopOptions) {
    this.#client = client;
    this.#options = options;
    this.#log = new LimitedLog(guardedLogger(options.logger));
    this.#prefix = `mesh(${JSON.stringify(client.url.host)}): `;
  }

  /** Connects and asks for changes; true when the relay is the one to ignore. */
  async connect(): Promise<boolean> {
    this.#connected = false;
    await this.#client.watchConnectionChanges();
    this.#connected = true;
    const { ignoreServerKey = this.#client.publicKey } = this.#options;
    if (this.#client.serverPublicKey?.equals(ignoreServerKey)) {
      this.#log.log('info', 'mesh', {}, `${this.#prefix}detected self-connect; ignoring host`);
      return true;
    }
    this.#expectFlood(FLOOD_WAIT);
    return false;
  }

  /** Takes one message. */
  async step(): Promise<void> {
    const { message, generation } = await this.#client.recvDetail();
    if (generation !== this.#generation) {
      this.#clear();
      this.#generation = generation;
    }
    if (message.type === 'peerPresent') {
      this.#add(message);
    } else if (message.type === 'peerGone') {
      this.#present.delete(message.peer.hex);
      this.#options.remove(message);
    }
  }

  #add(peer: PeerPresentMessage): void {
    if (this.#floodEnd !== undefined) this.#expectFlood(FLOOD_QUIET_TIME);
    if (this.#present.size >= MAX_WATCHED_KEYS && !this.#present.has(peer.key.hex)) {
      if (this.#saidTooMany) return;
      this.#saidTooMany = true;
      const text = `the relay reports more than ${MAX_WATCHED_KEYS} clients; ignoring the others`;
      this.#log.log('warn', 'mesh', {}, `${this.#prefix}${text}`);
      return;
    }
    this.#present.set(peer.key.hex, peer.key);
    this.#options.add(peer);
  }

  /** Forgets all known keys. */
  disconnected(): void {
    clearTimeout(this.#floodEnd);
    this.#floodEnd = undefined;
    this.#saidTooMany = false;
    this.#clear();
  }

  failed(error: Error): void {
    this.#log.log('warn', 'mesh', {}, `${this.#prefix}${this.#connected ? 'Recv' : 'mesh connect'}: ${error.message}`);
  }

  #clear(): void {
    if (this.#present.size === 0) return;
    const peers = [...this.#present.values()];
    this.#present.clear();
    this.#log.log('info', 'mesh', {}, `${this.#prefix}reconnected; clearing ${peers.length} forwarding mappings`);
    for (const peer of peers) {
      this.#options.remove({ type: 'peerGone', peer, reason: PeerGoneReason.MESH_CONNECTION_BROKE });
    }
  }

  #expectFlood(milliseconds: number): void {
    clearTimeout(this.#floodEnd);
    this.#floodEnd = setTimeout(() => {
      this.#floodEnd = undefined;
      this.#log.log('info', 'mesh', {}, `${this.#prefix}connected; ${this.#present.size} peers`);
    }, milliseconds).unref();
  }
}
