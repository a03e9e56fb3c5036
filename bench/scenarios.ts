/**
 * What the bench measures, as data. A scenario is run once per round against each peer, in fresh processes of relay and load.
 *
 * Targets: where the cost of Go's relay is the measure, the figure is that peer's cost divided by ours in the same round.
 */

/** Who sends to whom: fixed pairs, both ways; or each packet to a random other client. */
export type Topology = 'pairs' | 'any';

/** Where the two ends of a packet's way live; `any` when there is one shard only. */
export type Placement = 'any' | 'same-shard' | 'cross-shard';

/** What a scenario has to reach. */
export type Target =
  /** CPU of the Go relay per unit / ours. */
  | { kind: 'go-ratio'; atLeast: number }
  /** Our CPU per unit / ours in another scenario. */
  | { kind: 'scenario-ratio'; scenario: string; atMost: number }
  /** Resident bytes per client. */
  | { kind: 'bytes'; atMost: number }
  /** Milliseconds from start to listening. */
  | { kind: 'millis'; atMost: number }
  /** Packets delivered per second / the most that the relay carries in an open loop. */
  | { kind: 'goodput'; atLeast: number }
  /** p99 of packets while pages are asked for / without. */
  | { kind: 'p99-ratio'; atMost: number }
  /** Share of the newcomers that did not get in. */
  | { kind: 'failed-newcomers'; atMost: number };

interface Common {
  /** Unique; what `--only` matches. */
  name: string;
  clients: number;
  /** Shards of derplane; other relays have no such thing. */
  shards: number;
  /** TLS 1.3, AES-128-GCM, X25519, an ECDSA P-256 certificate; each packet in a record of its own, as Tailscale's clients send it. */
  tls?: boolean;
  target?: Target;
  /** Left out by `--quick`. */
  thorough?: boolean;
  /** Only run when asked for by `--all` or `--only`. */
  optional?: boolean;
}

interface Traffic extends Common {
  topology: Topology;
  placement: Placement;
  packetBytes: number;
  /** Two meshed relays in one process, whose CPU is counted together: all clients on one of them, or senders and receivers apart. */
  mesh?: 'local' | 'hop';
}

/** Each sender keeps `window` packets outstanding. */
export interface ClosedLoop extends Traffic {
  kind: 'closed';
  window: number;
}

/** Packets leave on schedule, whatever arrives. */
export interface OpenLoop extends Traffic {
  kind: 'open';
  /** Packets per second of all senders together, or a share of the most that the relay carries in an open loop. */
  rate: { packetsPerSecond: number } | { shareOfPeak: number };
}

/** Connect and handshake, `concurrency` at a time, of `clients` that come after `warmup` others. */
export interface Connect extends Common {
  kind: 'connect';
  concurrency: number;
  /** Clients that connect before the measured ones: a relay's code is interpreted at first. They stay connected. */
  warmup: number;
}

/** Clients that only stay connected. */
export interface Idle extends Common {
  kind: 'idle';
}

/** GET of a page over `clients` keep-alive connections. */
export interface Http extends Common {
  kind: 'http';
  path: string;
}

/** From the start of the command to the first connection that is accepted; median of `starts`. */
export interface Start extends Common {
  kind: 'start';
  starts: number;
}

/** Where a stranger's connection stops: at once, after its first byte (which `drip` repeats), a ClientHello, or an answered request. */
export type SilentStop = 'connect' | 'drip' | 'ClientHello' | 'page';

/** Packets as in an open loop, without and with strangers who open connections and stop; newcomers want in meanwhile. */
export interface Silent extends Common {
  kind: 'silent';
  /** Connections that the strangers keep open, and the addresses that these come from. */
  connections: number;
  addresses: number;
  stop: SilentStop;
}

/** Keys leave a shard with `clients` others; `receivers` of these hear of each. No sockets: only the data plane. */
export interface Departures extends Common {
  kind: 'departures';
  receivers: number;
  departures: number;
}

/** STUN requests over IPv4, `window` outstanding, to a relay that serves nothing but STUN, without a bound on answers. */
export interface Stun extends Common {
  kind: 'stun';
  window: number;
}

/** Packets as in an open loop, without and with requests for a page meanwhile. */
export interface PageLoad extends Common {
  kind: 'page-load';
  path: string;
  /** Requests per second, over `connections` that stay open. */
  requestsPerSecond: number;
  connections: number;
}

export type Scenario = ClosedLoop | OpenLoop | Connect | Idle | Http | PageLoad | Start | Silent | Departures | Stun;

/** A usual WireGuard packet in a tunnel of 1,280 bytes MTU. */
const PACKET_BYTES = 1280;

const GO_RATIOS: Record<Topology, Record<number, number>> = {
  pairs: { 1: 1.5, 4: 2.4, 16: 5 },
  any: { 1: 1.5, 4: 2, 16: 4 },
};

/** Per window. */
const TLS_GO_RATIOS: Record<number, number> = { 1: 1.2, 4: 1.5, 16: 1.8 };

const CLIENTS: Record<Topology, number> = { pairs: 20, any: 200 };

function closed(topology: Topology, window: number): ClosedLoop {
  return {
    kind: 'closed',
    name: `${topology} W=${window}`,
    clients: CLIENTS[topology],
    shards: 1,
    placement: 'any',
    packetBytes: PACKET_BYTES,
    topology,
    window,
    target: { kind: 'go-ratio', atLeast: GO_RATIOS[topology][window]! },
  };
}

/** Both shards run on the relay's one core, so the figure is the cost of the way between shards and of waking the other one. */
function acrossShards(topology: Topology, window: number): ClosedLoop[] {
  const sameShard: ClosedLoop = { ...closed(topology, window), shards: 2, placement: 'same-shard' };
  sameShard.name = `${topology} W=${window} 2 shards, same`;
  delete sameShard.target;
  const crossShard: ClosedLoop = {
    ...sameShard,
    name: `${topology} W=${window} 2 shards, cross`,
    placement: 'cross-shard',
    target: { kind: 'scenario-ratio', scenario: sameShard.name, atMost: 1.5 },
  };
  return [sameShard, crossShard];
}

/** A hop is client, relay, link, relay, client: the figure is the cost of both relays together. */
function acrossMesh(window: number): ClosedLoop[] {
  const local: ClosedLoop = { ...closed('pairs', window), name: `mesh W=${window} local`, mesh: 'local' };
  delete local.target;
  const target = { kind: 'scenario-ratio', scenario: local.name, atMost: 2.2 } as const;
  return [local, { ...local, name: `mesh W=${window} hop`, mesh: 'hop', target }];
}

function open(name: string, rate: OpenLoop['rate'], more: Partial<OpenLoop> = {}): OpenLoop {
  return {
    kind: 'open',
    name,
    clients: CLIENTS.pairs,
    shards: 1,
    topology: 'pairs',
    placement: 'any',
    packetBytes: PACKET_BYTES,
    rate,
    ...more,
  };
}

/** The cost per packet at one and the same rate must not depend on how many clients there are. */
const flatness = [20, 200, 2_000, 9_900].map((clients) => {
  const scenario = open(
    `flat ${clients} clients`,
    { packetsPerSecond: 50_000 },
    { clients, topology: 'any', optional: true },
  );
  if (clients > 20) scenario.target = { kind: 'scenario-ratio', scenario: 'flat 20 clients', atMost: 1.3 };
  return scenario;
});

const connect: Connect = {
  kind: 'connect',
  name: 'connect',
  clients: 4_000,
  shards: 1,
  concurrency: 64,
  warmup: 2_000,
  target: { kind: 'go-ratio', atLeast: 1.67 },
};

const idle: Idle = {
  kind: 'idle',
  name: 'idle',
  clients: 9_000,
  shards: 1,
  target: { kind: 'bytes', atMost: 2_500 },
};

/** The cost of a departure must follow its receivers, not the clients. Twice as much: more memory than the caches hold. */
const departures = [10_000, 100_000].map((clients): Departures => {
  const name = (count: number) => `departures, ${count} clients`;
  const target = { kind: 'scenario-ratio', scenario: name(10_000), atMost: 2 } as const;
  return {
    ...{ kind: 'departures', name: name(clients), clients, shards: 1, receivers: 8, departures: 2_000 },
    ...(clients > 10_000 && { target }),
  };
});

/** With one request outstanding each answer costs system calls of its own; with 64 they can share them. */
const stun = [1, 64].map((window): Stun => {
  const name = `stun W=${window}`;
  return { kind: 'stun', name, clients: 1, shards: 1, window, target: { kind: 'go-ratio', atLeast: 1 } };
});

const probe: Http = {
  kind: 'http',
  name: 'GET /derp/probe',
  clients: 20,
  shards: 1,
  path: '/derp/probe',
  target: { kind: 'go-ratio', atLeast: 1 },
};

/** What strangers who ask for pages do to packets. */
const pageLoad: PageLoad = {
  ...{ kind: 'page-load', name: 'packets beside 1,000 GET /derp/probe a second' },
  ...{ clients: CLIENTS.pairs, shards: 1, path: '/derp/probe', requestsPerSecond: 1_000, connections: 20 },
  target: { kind: 'p99-ratio', atMost: 1.5 },
};

const start: Start = {
  kind: 'start',
  name: 'start',
  clients: 0,
  shards: 1,
  starts: 3,
  target: { kind: 'millis', atMost: 400 },
};

/** 10,000 is what derper takes without refusing any. */
function silent(addresses: number, stop: SilentStop = 'connect'): Silent {
  return {
    kind: 'silent',
    name: `silent ${stop}, ${addresses} addresses`,
    clients: CLIENTS.pairs,
    shards: 1,
    connections: 10_000,
    addresses,
    stop,
    optional: true,
    target: { kind: 'failed-newcomers', atMost: 0.01 },
  };
}

function silentOverTls(addresses: number, stop?: SilentStop): Silent {
  return overTls(silent(addresses, stop), { kind: 'failed-newcomers', atMost: 0.01 });
}

/** Of the TLS scenarios, what `--quick` runs. */
const TLS_QUICK = [
  'pairs W=1',
  'pairs W=16',
  'any W=16',
  'pairs W=16 2 shards, same',
  'pairs W=16 2 shards, cross',
  'connect',
  'start',
];

/** The same over TLS. */
function overTls<S extends Scenario>(plain: S, target?: Target): S {
  const scenario = { ...plain, name: `tls ${plain.name}`, tls: true, thorough: !TLS_QUICK.includes(plain.name) };
  delete scenario.target;
  return target === undefined ? scenario : { ...scenario, target };
}

function closedOverTls(topology: Topology, window: number): ClosedLoop {
  return overTls(closed(topology, window), { kind: 'go-ratio', atLeast: TLS_GO_RATIOS[window]! });
}

function acrossShardsOverTls(topology: Topology, window: number): ClosedLoop[] {
  const [same, cross] = acrossShards(topology, window) as [ClosedLoop, ClosedLoop];
  const sameOverTls = overTls(same);
  return [sameOverTls, overTls(cross, { kind: 'scenario-ratio', scenario: sameOverTls.name, atMost: 1.5 })];
}

export const scenarios: Scenario[] = [
  ...[1, 4, 16].map((window) => closed('pairs', window)),
  ...[1, 4, 16].map((window) => closed('any', window)),
  ...[1, 4, 16].flatMap((window) => acrossShards('pairs', window)),
  ...[1, 4, 16].flatMap((window) => acrossShards('any', window)),
  ...[1, 4, 16].flatMap(acrossMesh),
  open('latency at 20% of peak', { shareOfPeak: 0.2 }),
  open('overload, twice the peak', { shareOfPeak: 2 }, { target: { kind: 'goodput', atLeast: 0.9 } }),
  ...flatness,
  connect,
  idle,
  start,
  ...departures,
  ...stun,
  probe,
  pageLoad,
  ...(['pairs', 'any'] as const).flatMap((topology) => [1, 4, 16].map((window) => closedOverTls(topology, window))),
  ...(['pairs', 'any'] as const).flatMap((topology) =>
    [1, 4, 16].flatMap((window) => acrossShardsOverTls(topology, window)),
  ),
  overTls(connect, { kind: 'go-ratio', atLeast: 1.11 }),
  overTls(idle, { kind: 'bytes', atMost: 20_000 }),
  overTls(start, { kind: 'millis', atMost: 400 }),
  overTls(probe),
  overTls(pageLoad, { kind: 'p99-ratio', atMost: 1.5 }),
  ...[1, 2_000].flatMap((addresses) => [
    silent(addresses),
    silent(addresses, 'drip'),
    silent(addresses, 'page'),
    silentOverTls(addresses),
    silentOverTls(addresses, 'ClientHello'),
  ]),
];
