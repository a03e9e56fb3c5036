/** Who moves how many bytes: collected from all shards at once, for the debug page. */
import type { ConnectionId, NativeRelay } from '../native.js';
import { PublicKey } from '../protocol/key.js';

/** Traffic of one client's TCP connection since it was made, as the kernel counts it. */
export interface ConnectionTraffic {
  readonly id: ConnectionId;
  readonly key: PublicKey;
  /** Payload bytes that the relay sent, those sent again included. */
  readonly sent: number;
  /** Payload bytes that the relay received. */
  readonly received: number;
  /** Keys that it received packets from: exact up to 4,096, an estimate beyond. */
  readonly uniqueSenders: number;
}

interface Snapshot {
  ticket: number;
  /** Shards that have not answered completely. */
  left: number;
  connections: ConnectionTraffic[];
  resolve: (connections: ConnectionTraffic[]) => void;
  done: Promise<ConnectionTraffic[]>;
}

/** Bytes of a record of the event `traffic`; its layout is `TrafficRecord` in native/io/shard_metrics.cc. */
const RECORD = 64;

export class Traffic {
  readonly #relay: NativeRelay;
  readonly #shards: number;
  #nextTicket = 1;
  #current: Snapshot | undefined;

  constructor(relay: NativeRelay, shards: number) {
    this.#relay = relay;
    this.#shards = shards;
  }

  /** One collection at a time: concurrent callers share its result, so extra callers cost the shards nothing. */
  snapshot(): Promise<ConnectionTraffic[]> {
    if (this.#current !== undefined) return this.#current.done;
    const ticket = this.#nextTicket++;
    let resolve!: Snapshot['resolve'];
    const done = new Promise<ConnectionTraffic[]>((settle) => {
      resolve = settle;
    });
    this.#current = { ticket, left: this.#shards, connections: [], resolve, done };
    this.#relay.traffic(ticket);
    return done;
  }

  /** Takes part of a shard's answer. */
  take(ticket: number, records: Buffer, last: boolean): void {
    const current = this.#current;
    if (current?.ticket !== ticket) return;
    for (let at = 0; at < records.length; at += RECORD) current.connections.push(connectionAt(records, at));
    if (last && --current.left === 0) this.#finish(current);
  }

  /** No shard answers any more: who waits gets what has come. */
  close(): void {
    if (this.#current !== undefined) this.#finish(this.#current);
  }

  #finish(snapshot: Snapshot): void {
    this.#current = undefined;
    snapshot.resolve(snapshot.connections);
  }
}

function connectionAt(records: Buffer, at: number): ConnectionTraffic {
  const figure = (index: number) => Number(records.readBigUInt64LE(at + 8 * index));
  return {
    id: figure(0),
    sent: figure(1),
    received: figure(2),
    uniqueSenders: figure(3),
    key: PublicKey.fromBytes(records.subarray(at + 32, at + RECORD)),
  };
}
