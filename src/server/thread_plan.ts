/** How many threads a relay gets, and why. */
import {
  MAX_DEFAULT_HANDSHAKE_THREADS,
  MAX_SHARDS,
  MEMORY_PER_THREAD,
  MEMORY_WITHOUT_THREADS,
  MIN_RING_BYTES,
} from './defaults.js';
import { type Resources, readResources } from './resources.js';

export interface ThreadWishes {
  /** Undefined: as many as fit. */
  shards: number | undefined;
  /** Undefined: as many as fit. */
  handshakeThreads: number | undefined;
  /** Budget of all rings, bytes. */
  ringBytes: number;
}

export interface ThreadPlan {
  shards: number;
  handshakeThreads: number;
  /** For the log: `2 shards, 1 handshake thread (CPU quota 1.5 of 64 CPUs)`. */
  text: string;
}

/** @param read - for tests */
export function planThreads(wishes: ThreadWishes, read: () => Resources = readResources): ThreadPlan {
  const { shards, handshakeThreads, ringBytes } = wishes;
  if (shards !== undefined && handshakeThreads !== undefined) {
    return { shards, handshakeThreads, text: `${threads(shards, handshakeThreads)} (as set)` };
  }
  const resources = read();
  const chosen = choose(resources, ringBytes);
  const plan = { shards: shards ?? chosen.shards, handshakeThreads: handshakeThreads ?? chosen.handshakeThreads };
  const set = [
    ...(shards === undefined ? [] : ['shards as set']),
    ...(handshakeThreads === undefined ? [] : ['handshake threads as set']),
  ];
  const why = [...set, cpuReason(resources), ...(shards === undefined ? chosen.bounds : [])].join(', ');
  return { ...plan, text: `${threads(plan.shards, plan.handshakeThreads)} (${why})` };
}

interface Choice {
  shards: number;
  handshakeThreads: number;
  /** What keeps the number of shards below that of CPUs. */
  bounds: string[];
}

function choose({ allowedCpus, cpuQuota, memory }: Resources, ringBytes: number): Choice {
  const cpus = Math.max(1, Math.min(allowedCpus, Math.round(cpuQuota ?? allowedCpus)));
  const bounds: string[] = [];
  let shards = Math.min(cpus, MAX_SHARDS);
  const byRings = shardsOfRings(ringBytes);
  if (byRings < shards) {
    shards = byRings;
    bounds.push(`rings of ${mebibytes(ringBytes)}`);
  }
  let handshakeThreads = Math.min(MAX_DEFAULT_HANDSHAKE_THREADS, Math.max(1, Math.floor(cpus / 4)));
  // Half of the memory is for clients.
  const byMemory = Math.floor((memory / 2 - MEMORY_WITHOUT_THREADS) / MEMORY_PER_THREAD);
  if (byMemory < shards + handshakeThreads) {
    handshakeThreads = Math.max(1, Math.min(handshakeThreads, Math.floor(byMemory / 4)));
    const fitting = Math.max(1, Math.min(shards, byMemory - handshakeThreads));
    if (fitting < shards) bounds.push(`memory limit ${mebibytes(memory)}`);
    shards = fitting;
  }
  return { shards, handshakeThreads, bounds };
}

/** The most shards within the budget: each pair of shards has two rings, and rings have a minimum size. */
function shardsOfRings(ringBytes: number): number {
  return Math.max(1, Math.floor((1 + Math.sqrt(1 + (4 * ringBytes) / MIN_RING_BYTES)) / 2));
}

function cpuReason({ machineCpus, allowedCpus, cpuQuota }: Resources): string {
  const all = count(machineCpus, 'CPU');
  if (cpuQuota !== undefined && cpuQuota < allowedCpus) return `CPU quota ${Number(cpuQuota.toFixed(2))} of ${all}`;
  return allowedCpus < machineCpus ? `${allowedCpus} of ${all} allowed` : all;
}

function threads(shards: number, handshakeThreads: number): string {
  return `${count(shards, 'shard')}, ${count(handshakeThreads, 'handshake thread')}`;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
