/** Relays for tests: started with few threads, always checked for consistency and closed at the end. */

import { createPageServer, type Listener, type ListenOptions, Server, type ServerOptions, TlsContext } from 'derplane';
import { afterAll, afterEach, beforeAll, inject } from 'vitest';
import { PrivateKey, type PublicKey } from '../../dist/protocol/key.js';
import { type DialOptions, RawClient, type UpgradeOptions } from './raw_client.js';

/** Whether this run puts every relay behind TLS. */
const EVERYTHING_OVER_TLS = process.env['DERPLANE_TEST_TLS'] === '1';

/** The shard counts at which every promise of the relay must hold. */
export const SHARD_COUNTS = [1, 2, 4] as const;

/** Where the second key of a pair lives, seen from the first. */
export type Placement = 'on one shard' | 'across shards';

/** The placements that exist with so many shards. */
export function placements(shards: number): Placement[] {
  return shards === 1 ? ['on one shard'] : ['on one shard', 'across shards'];
}

/** Keys to try before giving up on finding one for a shard: at 64 shards a miss has a chance of 1 in 10^68. */
const KEY_ATTEMPTS = 10_000;

export class TestRelay {
  readonly server: Server;
  readonly shards: number;
  /** Its certificates; undefined: it serves without TLS. */
  readonly tls: TlsContext | undefined;
  #listener!: Listener;
  readonly #clients: RawClient[] = [];

  constructor(server: Server, shards: number, tls: TlsContext | undefined) {
    this.server = server;
    this.shards = shards;
    this.tls = tls;
  }

  async start(): Promise<void> {
    this.#listener = await this.listen({ httpServer: createPageServer() });
  }

  /** Listens on a free port, loopback's where nothing else is said, in the way of this relay. */
  listen(options: Partial<ListenOptions> = {}): Promise<Listener> {
    return this.server.listen({ host: '127.0.0.1', port: 0, ...(this.tls && { tls: this.tls }), ...options });
  }

  get port(): number {
    return this.#listener.port;
  }

  get url(): string {
    return `${this.tls ? 'https' : 'http'}://127.0.0.1:${this.port}/derp`;
  }

  /** A new key that lives on `shard`. */
  keyOn(shard: number): PrivateKey {
    for (let attempt = 0; attempt < KEY_ATTEMPTS; attempt++) {
      const key = PrivateKey.generate();
      if (this.server.shardOf(key.publicKey) === shard) return key;
    }
    throw new Error(`none of ${KEY_ATTEMPTS} keys lives on shard ${shard} of ${this.shards}`);
  }

  /** A new key that lives with `other` or, across shards, anywhere else. */
  keyNear(other: PublicKey, placement: Placement): PrivateKey {
    const home = this.server.shardOf(other);
    return this.keyOn(placement === 'on one shard' ? home : (home + 1) % this.shards);
  }

  /** A connection to the relay on which nothing was sent yet, TLS's handshake apart. */
  async dial(key?: PrivateKey, options: Partial<DialOptions> = {}): Promise<RawClient> {
    const tls = this.tls && { tls: { ca: inject('relayCertificate').cert } };
    return this.track(await RawClient.connect({ port: this.port, ...(key && { key }), ...tls, ...options }));
  }

  /** A client past its handshake. */
  async connect(options: UpgradeOptions & { key?: PrivateKey; meshKey?: string } = {}): Promise<RawClient> {
    return (await this.dial(options.key)).open(options);
  }

  /** Two clients placed as asked. */
  async pair(placement: Placement): Promise<[RawClient, RawClient]> {
    const first = await this.connect({ key: this.keyOn(0) });
    const second = await this.connect({ key: this.keyNear(first.publicKey, placement) });
    return [first, second];
  }

  /** One client per shard. */
  async onePerShard(): Promise<RawClient[]> {
    return Promise.all(Array.from({ length: this.shards }, (_, shard) => this.connect({ key: this.keyOn(shard) })));
  }

  /** Destroys the client when the relay ends. */
  track(client: RawClient): RawClient {
    this.#clients.push(client);
    return client;
  }

  /** One figure of `expVar()`; `path` goes into nested objects. Missing figures are an error. */
  counter(...path: string[]): number {
    let value: unknown = this.server.expVar();
    for (const name of path) value = (value as Record<string, unknown> | undefined)?.[name];
    if (typeof value !== 'number') {
      throw new Error(`expVar() has no figure ${path.join('.')}: ${JSON.stringify(this.server.expVar())}`);
    }
    return value;
  }

  /** Waits until a figure is as wanted: shards publish theirs at the end of a turn, and no event tells of it. */
  async untilCounter(path: string[], wanted: (value: number) => boolean, patience = 10_000): Promise<number> {
    const deadline = Date.now() + patience;
    for (;;) {
      const value = this.counter(...path);
      if (wanted(value)) return value;
      if (Date.now() > deadline) throw new Error(`${path.join('.')} is still ${value} after ${patience} ms`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Packets dropped so far for a reason. */
  dropped(reason: string, kind: 'disco' | 'other'): number {
    return this.counter('packets_dropped', reason, kind);
  }

  untilDropped(reason: string, kind: 'disco' | 'other', wanted: (value: number) => boolean): Promise<number> {
    return this.untilCounter(['packets_dropped', reason, kind], wanted);
  }

  /** Waits until every packet received was sent or dropped for a reason, whatever the reason. */
  async untilAllAccountedFor(): Promise<void> {
    const figure = (path: string) => sum((this.server.expVar() as Record<string, Figures>)[path] as Figures);
    const deadline = Date.now() + 10_000;
    for (;;) {
      const received = figure('packets_received') + figure('packets_forwarded_in');
      const missing = received - figure('packets_sent') - figure('packets_forwarded_out') - figure('packets_dropped');
      if (missing === 0) return;
      if (Date.now() > deadline) throw new Error(`${missing} of ${received} packets are neither sent nor dropped`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  hangUp(): void {
    for (const client of this.#clients.splice(0)) client.destroy();
  }
}

type Figures = number | { [label: string]: Figures };

function sum(figures: Figures): number {
  return typeof figures === 'number' ? figures : Object.values(figures).reduce<number>((total, f) => total + sum(f), 0);
}

export type RelayOptions = ServerOptions & {
  shards: number;
  /** Certificates of a relay behind TLS; true: the run's own, for every name. Default: as the run says. */
  tls?: TlsContext | boolean;
};

/** A context that answers every name with the run's certificate. */
export function anyNameContext(): TlsContext {
  const context = new TlsContext();
  context.set('*', [inject('relayCertificate')]);
  return context;
}

async function startRelay({ tls = EVERYTHING_OVER_TLS, ...options }: RelayOptions): Promise<TestRelay> {
  const server = new Server(PrivateKey.generate(), {
    ...options,
    handshake: { threads: 1, ...options.handshake },
  });
  const context = tls === true ? anyNameContext() : tls;
  const relay = new TestRelay(server, options.shards, context === false ? undefined : context);
  try {
    await relay.start();
    return relay;
  } catch (error) {
    await server.close();
    throw error;
  }
}

/** Throws unless the relay's tables are in order and no wake-up between shards was lost. */
async function checkInvariants(server: Server): Promise<void> {
  await server.consistencyCheck();
  const lost = server.expVar()['lost_wakes'];
  if (lost !== 0) throw new Error(`${lost} wake-ups between shards were lost`);
}

/** Runs `body` with a relay on a free loopback port; then checks the relay's invariants and closes it. */
export async function withRelay(options: RelayOptions, body: (relay: TestRelay) => Promise<void>): Promise<void> {
  const relay = await startRelay(options);
  try {
    await body(relay);
    await checkInvariants(relay.server);
    relay.hangUp();
    await checkInvariants(relay.server);
  } finally {
    relay.hangUp();
    await relay.server.close();
  }
}

/**
 * One relay for all tests of the enclosing `describe`, for tables of many small cases. After each test its clients are gone and the
 * relay's invariants checked; figures go on counting.
 */
export function sharedRelay(options: RelayOptions): () => TestRelay {
  let relay: TestRelay | undefined;
  const get = () => {
    if (!relay) throw new Error('the relay runs during tests only');
    return relay;
  };
  beforeAll(async () => {
    relay = await startRelay(options);
  });
  afterEach(async () => {
    await checkInvariants(get().server);
    get().hangUp();
    await get().untilCounter(['gauge_current_connections'], (value) => value === 0);
  });
  afterAll(() => relay?.server.close());
  return get;
}

/** Bytes of a length, in a pattern that shows shifts and mix-ups. */
export function patterned(length: number, seed = 0): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 7 + (i >> 8) + seed) & 0xff;
  return bytes;
}
