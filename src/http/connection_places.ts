/**
 * The connections that a page server holds. Their number is bounded; beyond, idle ones end for newcomers, so that nobody can lock others
 * out with connections that do nothing. Idle is a connection of which no request is being answered, however many bytes it sends.
 */
import { isIPv6, type Socket } from 'node:net';

export interface PlaceBounds {
  /** Connections at once. */
  max: number;
  /** Of them, from one source (an IPv4 address, an IPv6 /64) before its own idle ones end for its newcomers. */
  maxPerSource: number;
  /** Milliseconds that a connection may be idle before it can be ended: a client's request follows its connection at once. */
  grace: number;
}

/** Since the process started, over all page servers. */
export const placeFigures = { refused: 0, evicted: 0, evictedOfSource: 0 };

/** Connections of one source. */
interface Source {
  count: number;
  /** Those that are idle, the longest idle first, with when that began. */
  idle: Map<Socket, number>;
}

export class ConnectionPlaces {
  readonly #bounds: PlaceBounds;
  readonly #sources = new Map<string, Source>();
  readonly #sourceNames = new Map<Socket, string>();
  /** As {@link Source.idle}, of all sources. */
  readonly #idle = new Map<Socket, number>();

  constructor(bounds: PlaceBounds) {
    this.#bounds = bounds;
  }

  /** Gives a connection a place; false when there is none, and none could be made. */
  enter(socket: Socket): boolean {
    const name = sourceOf(socket.remoteAddress);
    const known = this.#sources.get(name);
    // Where none of its own is idle it may exceed its share: many clients come through one proxy.
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

  /** A request of the connection is being answered. */
  busy(socket: Socket): void {
    this.#idle.delete(socket);
    this.#sourceOf(socket)?.idle.delete(socket);
  }

  /** Nothing of the connection is being answered, from now on. */
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

  /** Ends the longest idle one. */
  #evict(idle: ReadonlyMap<Socket, number>): boolean {
    const [oldest] = idle;
    if (oldest === undefined || performance.now() - oldest[1] < this.#bounds.grace) return false;
    this.leave(oldest[0]);
    oldest[0].destroy();
    return true;
  }
}

/** What one stranger usually has: an IPv4 address, or the /64 of an IPv6 one. Empty for an unknown address. */
export function sourceOf(address: string | undefined): string {
  if (address === undefined || !isIPv6(address)) return address ?? '';
  if (address.includes('.')) return address.slice(address.lastIndexOf(':') + 1);
  const [head, tail] = address.split('::').map((part) => part.split(':').filter((group) => group !== '')) as string[][];
  const zeros = tail === undefined ? 0 : 8 - head!.length - tail.length;
  return [...head!, ...Array<string>(zeros).fill('0'), ...(tail ?? [])].slice(0, 4).join(':');
}
