/** The clients of a scenario: who has which key, lives on which shard and sends to whom. */
import { hello, type KeyPair, newKeyPair } from './hello.js';
import type { LoadClient } from './load.js';
import type { RunningRelay } from './peers.js';
import type { ClosedLoop, OpenLoop, Placement } from './scenarios.js';

/** Targets kept per sender in any-to-any traffic; with more clients each has a random selection. */
const MAX_TARGETS = 256;
/** Keys made at once while looking for ones that live where they should. */
const KEY_BATCH = 64;

/** Clients that send nothing. */
export function silentClients(relay: RunningRelay, count: number): LoadClient[] {
  return Array.from({ length: count }, () => toClient(relay, newKeyPair(), []));
}

/** Clients that send to each other. An even number of them, spread evenly over the shards. */
export async function talkingClients(
  relay: RunningRelay,
  { clients: count, topology, placement, mesh }: ClosedLoop | OpenLoop,
): Promise<LoadClient[]> {
  const shards = placement === 'any' ? 1 : relay.shards;
  if (placement !== 'any' && shards < 2) throw new Error(`${placement} traffic needs a relay with at least 2 shards`);
  const keys = await keysOverShards(relay, count, shards);
  const shardOf = (index: number) => index % shards;
  return keys.map((key, index) => {
    const targets =
      topology === 'pairs'
        ? [partner(index, shards, placement)]
        : anyTargets(
            index,
            count,
            (other) => placement === 'any' || (shardOf(other) === shardOf(index)) === (placement === 'same-shard'),
          );
    // Partners are neighbours, so a mesh has one of each pair on either relay.
    return toClient(relay, key, targets, mesh === 'hop' && index % 2 === 1);
  });
}

/** Client `i` lives on shard `i % shards`; with one shard, anywhere. */
async function keysOverShards(relay: RunningRelay, count: number, shards: number): Promise<KeyPair[]> {
  if (shards === 1) return Array.from({ length: count }, newKeyPair);
  const found: KeyPair[][] = Array.from({ length: shards }, () => []);
  while (found.some((keys) => keys.length < Math.ceil(count / shards))) {
    const batch = Array.from({ length: KEY_BATCH }, newKeyPair);
    const homes = await relay.shardOf(batch.map((pair) => pair.publicKey));
    for (const [i, pair] of batch.entries()) found[homes[i]!]!.push(pair);
  }
  return Array.from({ length: count }, (_, index) => found[index % shards]![Math.floor(index / shards)]!);
}

/** Neighbours pair up: across shards these are `i` and `i ^ 1`, within one `i` and the next one of the same shard. */
function partner(index: number, shards: number, placement: Placement): number {
  if (placement !== 'same-shard') return index ^ 1;
  const row = Math.floor(index / shards);
  return (row ^ 1) * shards + (index % shards);
}

function anyTargets(index: number, count: number, wanted: (other: number) => boolean): number[] {
  const others = Array.from({ length: count }, (_, other) => other).filter((other) => other !== index && wanted(other));
  if (others.length <= MAX_TARGETS) return others;
  return Array.from({ length: MAX_TARGETS }, () => others[Math.floor(Math.random() * others.length)]!);
}

function toClient(relay: RunningRelay, key: KeyPair, targets: number[], onSecond = false): LoadClient {
  const { publicKey, path } = (onSecond ? relay.second : undefined) ?? { publicKey: relay.publicKey, path: '/derp' };
  return { key: key.publicKey, hello: hello(relay.port, publicKey, key, path), targets: Uint32Array.from(targets) };
}
