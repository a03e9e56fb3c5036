/** Forwarders registered in JavaScript: which key goes through which, the first registered first. */
import { DerpError } from '../errors.js';
import type { LimitedLog } from '../log_limit.js';
import type { NativeRelay } from '../native.js';
import type { PacketForwarder } from '../protocol/forwarder.js';
import { PublicKey } from '../protocol/key.js';

export class Forwarders {
  /** Keys that had one forwarder and got a second. */
  multiCreated = 0;
  /** Keys that had two and went back to one. */
  multiDeleted = 0;
  /** Removals of a forwarder that was not registered for a key that has others. */
  deleteOtherValue = 0;

  readonly #relay: NativeRelay;
  readonly #log: LimitedLog;
  readonly #byKey = new Map<string, PacketForwarder[]>();

  constructor(relay: NativeRelay, log: LimitedLog) {
    this.#relay = relay;
    this.#log = log;
  }

  /** Registering the same forwarder again changes nothing. */
  add(destination: PublicKey, forwarder: PacketForwarder): void {
    const list = this.#byKey.get(destination.hex);
    if (list === undefined) {
      this.#byKey.set(destination.hex, [forwarder]);
      this.#relay.setForwarder(destination.bytes, true);
      return;
    }
    if (list.includes(forwarder)) return;
    list.push(forwarder);
    if (list.length === 2) this.multiCreated++;
  }

  remove(destination: PublicKey, forwarder: PacketForwarder): void {
    const list = this.#byKey.get(destination.hex);
    if (list === undefined) return;
    const index = list.indexOf(forwarder);
    if (index === -1) {
      this.deleteOtherValue++;
      return;
    }
    list.splice(index, 1);
    if (list.length === 1) this.multiDeleted++;
    if (list.length > 0) return;
    this.#byKey.delete(destination.hex);
    this.#relay.setForwarder(destination.bytes, false);
  }

  /** A packet from a shard. A forwarder that fails loses it, and says so in the log. */
  async forward(source: Uint8Array, destination: Uint8Array, packet: Buffer): Promise<void> {
    const to = PublicKey.fromBytes(destination);
    const forwarder = this.#byKey.get(to.hex)?.[0];
    if (forwarder === undefined) return;
    try {
      await forwarder.forwardPacket(PublicKey.fromBytes(source), to, packet);
    } catch (error) {
      const { code } = error as { code?: string };
      const fields = { code, error: (error as Error).message, destination: to.shortString() };
      const final = error instanceof DerpError && error.code === 'ERR_DERP_CLOSED';
      this.#log.log(final ? 'debug' : 'warn', 'forwarder', fields, 'derp: forwarder failed');
    }
  }
}
