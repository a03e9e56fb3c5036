/** Events of a {@link Server}. Without listeners no event is created, and shards send none. */
import { EventEmitter } from 'node:events';
import type { PublicKey } from '../protocol/key.js';

/** A client that the relay has let in; peers reach it. */
export interface ConnectedClient {
  /** Number of the connection, unique in this process; one key may have several. */
  readonly id: number;
  readonly key: PublicKey;
  /** `ip:port`, IPv6 in brackets; empty when it is not known. */
  readonly address: string;
  readonly isMeshPeer: boolean;
  readonly isProber: boolean;
  /** Whether the client would rather be connected to another relay of the region. */
  readonly isNotIdeal: boolean;
}

/** A client whose connection ended. */
export interface GoneClient {
  /** As in {@link ConnectedClient}. */
  readonly id: number;
  readonly key: PublicKey;
  readonly address: string;
  /** Name of the reason, as in the figures `closed`: `eof`, `write_timeout`, ... */
  readonly reason: string;
  /** The reason in words. */
  readonly text: string;
}

/** The link to a relay of the region. */
export interface MeshLinkUp {
  /** The relay, as `addMeshPeer` or `mesh.with` names it. */
  readonly host: string;
  /** Keys that the link has brought so far. */
  readonly peers: number;
}

export interface MeshLinkDown {
  readonly host: string;
  /** Why, in words. */
  readonly reason: string;
}

/** Events of a `Server` with their arguments. */
export interface ServerEvents {
  clientConnected: [client: ConnectedClient];
  clientGone: [client: GoneClient];
  /** Events of so many clients were lost since the last one, as this thread was behind: what listeners know of clients may be wrong. */
  clientEventsLost: [count: number];
  /** A mesh link has been up for a second. */
  meshLinkUp: [link: MeshLinkUp];
  /** A mesh link that was up has ended. */
  meshLinkDown: [link: MeshLinkDown];
  /** `close({ drainTime })` has let all clients go, or its time is over. */
  drained: [];
}

/** The events that shards tell only when somebody listens. */
const OF_CLIENTS = ['clientConnected', 'clientGone', 'clientEventsLost'] as const;

/** Calls `changed` whenever the first listener for clients is added or the last is removed. */
export let watchClientListeners: (emitter: ServerEmitter, changed: (wanted: boolean) => void) => void;

/** Calls the listeners of an event; what one throws goes to `failed`, and the others are called all the same. */
export let tell: <Event extends keyof ServerEvents>(
  emitter: ServerEmitter,
  failed: (error: unknown) => void,
  event: Event,
  ...args: ServerEvents[Event]
) => void;

/** An emitter that knows whether it has listeners for clients. */
export class ServerEmitter extends EventEmitter<ServerEvents> {
  #changed: (wanted: boolean) => void = () => {};
  #wanted = false;

  static {
    watchClientListeners = (emitter, changed) => {
      emitter.#changed = changed;
    };
    tell = (emitter, failed, event, ...args) => {
      for (const listener of emitter.rawListeners(event)) {
        try {
          Reflect.apply(listener, emitter, args);
        } catch (error) {
          failed(error);
        }
      }
    };
  }

  constructor() {
    super();
    this.#hook();
  }

  /** Node's also removes what hears of new listeners. */
  override removeAllListeners(...names: [name?: unknown]): this {
    super.removeAllListeners(...(names as []));
    this.#hook();
    this.#look();
    return this;
  }

  #hook(): void {
    const plain: EventEmitter = this as unknown as EventEmitter;
    plain.off('newListener', this.#onNew).off('removeListener', this.#onRemoved);
    plain.on('newListener', this.#onNew).on('removeListener', this.#onRemoved);
  }

  /** Called before the listener is there. */
  readonly #onNew = (name: string) => {
    if ((OF_CLIENTS as readonly string[]).includes(name)) this.#want(true);
  };

  readonly #onRemoved = () => this.#look();

  #look(): void {
    this.#want(OF_CLIENTS.some((event) => this.listenerCount(event) > 0));
  }

  #want(wanted: boolean): void {
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    this.#changed(wanted);
  }
}
