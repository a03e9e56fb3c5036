/** Checks of all shards' tables while the relay runs: each is asked at once, and answers by an event. */
import type { NativeRelay } from '../native.js';

interface Pending {
  /** Shards that have not answered. */
  left: number;
  violations: string[];
  resolve: (violations: string[] | undefined) => void;
}

export class ConsistencyChecks {
  readonly #relay: NativeRelay;
  readonly #shards: number;
  readonly #pending = new Map<number, Pending>();
  #nextTicket = 1;

  constructor(relay: NativeRelay, shards: number) {
    this.#relay = relay;
    this.#shards = shards;
  }

  /** What does not hold; undefined: the relay was closed meanwhile. */
  run(): Promise<string[] | undefined> {
    return this.#ask(true);
  }

  /** Resolves when every shard has answered; false: the relay was closed meanwhile. */
  async ping(): Promise<boolean> {
    return (await this.#ask(false)) !== undefined;
  }

  #ask(look: boolean): Promise<string[] | undefined> {
    const ticket = this.#nextTicket++;
    return new Promise((resolve) => {
      this.#pending.set(ticket, { left: this.#shards, violations: [], resolve });
      this.#relay.consistencyCheck(ticket, look);
    });
  }

  /** Takes a shard's answer. */
  take(ticket: number, shard: number, violations: string[]): void {
    const check = this.#pending.get(ticket);
    if (check === undefined) return;
    check.violations.push(...violations.map((text) => `shard ${shard}: ${text}`));
    if (--check.left > 0) return;
    this.#pending.delete(ticket);
    check.resolve(check.violations);
  }

  /** No shard answers any more. */
  close(): void {
    for (const check of this.#pending.values()) check.resolve(undefined);
    this.#pending.clear();
  }
}
