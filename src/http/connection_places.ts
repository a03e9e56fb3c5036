/**
 * The connections of a page server. Their number is bounded. At the limit, idle connections end to make room for new ones, so that
 * idle connections cannot lock others out. A connection is idle while the server answers no request of it, however much it sends.
 */
import { isIPv6, type Socket } from 'node:net';

export interface PlaceBounds {
  /** Maximum open connections. */
  max: number;
  /** Connections of one source (an IPv4 address or an IPv6 /64) beyond which its own idle ones end for its new ones. */
  maxPerSource: number;
  /** Milliseconds that a connection may be idle before it can end for a new one: real clients send their request at once. */
  grace: number;
}

/** Counts since the process started, over all page servers. */
export const placeFigures = { refused: 0, evicted: 0, evictedOfSource: 0 };

/** Connections of one source. */
interface Source {
  count: number;
  /** Idle connections with the start of their idle time, longest idle first. */
  idle: Map<Socket, number>;
}

export class ConnectionPlaces {
  readonly #bounds: PlaceBounds;
  readonly #sources = new Map<string, Source>();
  readonly #sourceNames = new Map<Socket, string>();
  /** As {@link Source.idle}, for all sources. */
  readonly #idle = new Map<Socket, number>();

  constructor(bounds: PlaceBounds) {
    this.#bounds = bounds;
  }

  /** Gives a connection a place; false if all are taken and no connection can end. */
  enter(socket: Socket): boolean {
    const name = sourceOf(socket.remoteAddress);
    const known = this.#sources.get(name);
    // A source without idle connections may exceed its share: many clients may come through one proxy.
    if (name !== '' && known !== undefined && known.count >= this.#bounds.maxPerSource && this.#evict(known.idle)) {
      placeFigures.evictedOfSource++;
    }
    if (this.#sourceNames.size >= this.#bounds.max) {
      if (!this.#evict(this.#idle)) {
        placeFigures.refused++;
        return false;
      }
      placeFigures.evicted++;
    }
    const source = this.#sources.get(name) ?? { count: 0, idle: new Map() };
    source.count++;
    this.#sources.set(name, source);
    this.#sourceNames.set(socket, name);
    this.idle(socket);
    return true;
  }

  /** The connection is no longer idle: the server answers a request. */
  busy(socket: Socket): void {
    this.#idle.delete(socket);
    this.#sourceOf(socket)?.idle.delete(socket);
  }

  /** The connection becomes idle. */
  idle(socket: Socket): void {
    const source = this.#sourceOf(socket);
    if (source === undefined) return;
    this.busy(socket);
    const now = performance.now();
    this.#idle.set(socket, now);
    source.idle.set(socket, now);
  }

  /** The connection is gone. Idempotent. */
  leave(socket: Socket): void {
    const source = this.#sourceOf(socket);
    if (source === undefined) return;
    this.busy(socket);
    if (--source.count === 0) this.#sources.delete(this.#sourceNames.get(socket)!);
    this.#sourceNames.delete(socket);
  }

  #sourceOf(socket: Socket): Source | undefined {
    const name = this.#sourceNames.get(socket);
    return name === undefined ? undefined : this.#sources.get(name);
  }

  /** Ends the connection that has been idle longest. */
  #evict(idle: ReadonlyMap<Socket, number>): boolean {
    const [oldest] = idle;
    if (oldest === undefined || performance.now() - oldest[1] < this.#bounds.grace) return false;
    this.leave(oldest[0]);
    oldest[0].destroy();
    return true;
  }
}

/** The addresses that one stranger usually has: an IPv4 address, or the /64 of an IPv6 one. Empty for an unknown address. */
export function sourceOf(address: string | undefined): string {
  if (address === undefined || !isIPv6(address)) return address ?? '';
  if (address.includes('.')) return address.slice(address.lastIndexOf(':') + 1);
  const [head, tail] = address.split('::').map((part) => part.split(':').filter((group) => group !== '')) as string[][];
  const zeros = tail === undefined ? 0 : 8 - head!.length - tail.length;
  return [...head!, ...Array<string>(zeros).fill('0'), ...(tail ?? [])].slice(0, 4).join(':');
}
