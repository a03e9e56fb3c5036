/** What this process may use of the machine: CPUs by affinity and quota, memory by control groups. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';

export interface Resources {
  /** CPUs of the machine. */
  machineCpus: number;
  /** Of those, how many the process may run on. */
  allowedCpus: number;
  /** CPU time per time, in CPUs; undefined: no quota. */
  cpuQuota: number | undefined;
  /** Bytes: the limit, or what the machine has. */
  memory: number;
}

/** @param root - where `/proc` and the control groups are found; for tests */
export function readResources(root = '/'): Resources {
  const limits = cgroupLimits(root);
  const allowedCpus = availableParallelism();
  return {
    // Where /proc is missing or made up there may seem to be fewer.
    machineCpus: Math.max(cpus().length, allowedCpus),
    allowedCpus,
    cpuQuota: limits.cpuQuota,
    memory: Math.min(totalmem(), limits.memory ?? Number.POSITIVE_INFINITY),
  };
}

export interface CgroupLimits {
  cpuQuota: number | undefined;
  /** Bytes. */
  memory: number | undefined;
}

/**
 * The smallest limits from the process' own groups up to the top of what is mounted, of both versions of control groups. What cannot be
 * read counts as no limit.
 */
export function cgroupLimits(root = '/'): CgroupLimits {
  const groups = folders(root);
  const quotas = [...folderValues(groups.v2, quotaV2), ...folderValues(groups.cpu, quotaV1)];
  const memory = [...folderValues(groups.v2, memoryV2), ...folderValues(groups.memory, memoryV1)];
  return { cpuQuota: smallest(quotas), memory: smallest(memory) };
}

function folderValues(folders: string[], read: (folder: string) => number | undefined): number[] {
  return folders.map(read).filter((value) => value !== undefined);
}

const smallest = (values: number[]) => (values.length === 0 ? undefined : Math.min(...values));

/** `QUOTA PERIOD` in microseconds, or `max PERIOD`. */
function quotaV2(folder: string): number | undefined {
  const [quota, period] = (readText(join(folder, 'cpu.max')) ?? '').trim().split(' ');
  return ratio(quota, period);
}

/** Microseconds each; a quota of -1 is none. */
function quotaV1(folder: string): number | undefined {
  return ratio(readText(join(folder, 'cpu.cfs_quota_us')), readText(join(folder, 'cpu.cfs_period_us')));
}

function ratio(quota: string | undefined, period: string | undefined): number | undefined {
  const cpus = Number(quota) / Number(period);
  return Number.isFinite(cpus) && cpus > 0 ? cpus : undefined;
}

function memoryV2(folder: string): number | undefined {
  return bytes(readText(join(folder, 'memory.max')));
}

function memoryV1(folder: string): number | undefined {
  return bytes(readText(join(folder, 'memory.limit_in_bytes')));
}

/** Text such as `max` means no limit. */
function bytes(text: string | undefined): number | undefined {
  const value = Number(text ?? Number.NaN);
  return Number.isFinite(value) && value > 0 ? value : undefined;
}

/** The process' group of each hierarchy with all groups above it, as folders. */
function folders(root: string): { v2: string[]; cpu: string[]; memory: string[] } {
  const paths = ownPaths(readText(join(root, 'proc/self/cgroup')) ?? '');
  const mounts = cgroupMounts(readText(join(root, 'proc/self/mountinfo')) ?? '');
  const of = (name: string) => {
    const mount = mounts.get(name);
    const path = paths.get(name);
    return mount === undefined || path === undefined ? [] : chain(root, mount, path);
  };
  return { v2: of(''), cpu: of('cpu'), memory: of('memory') };
}

/** Paths of `/proc/self/cgroup` by controller; that of version 2 by the empty name. */
function ownPaths(text: string): Map<string, string> {
  const paths = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, controllers, path] = line.match(/^\d+:([^:]*):(.*)$/) ?? [];
    for (const name of controllers?.split(',') ?? []) paths.set(name, path!);
  }
  return paths;
}

interface Mount {
  /** The group that is seen at the mount point. */
  group: string;
  point: string;
}

/** Mounts of `/proc/self/mountinfo` by controller; that of version 2 by the empty name. */
function cgroupMounts(text: string): Map<string, Mount> {
  const mounts = new Map<string, Mount>();
  for (const line of text.split('\n')) {
    const [left, right] = line.split(' - ');
    const [, , , group, point] = left!.split(' ');
    const [type, , options] = right?.split(' ') ?? [];
    if (group === undefined || point === undefined) continue;
    const mount = { group: unescapeOctal(group), point: unescapeOctal(point) };
    if (type === 'cgroup2') mounts.set('', mount);
    if (type === 'cgroup') for (const name of options?.split(',') ?? []) mounts.set(name, mount);
  }
  return mounts;
}

/** mountinfo writes a space as `\040`. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** The folders of `path` and of all groups above it. A container may see its own group at the mount point, whatever its path says. */
function chain(root: string, { group, point }: Mount, path: string): string[] {
  const inside = group === '/' ? path : path === group || path.startsWith(`${group}/`) ? path.slice(group.length) : '/';
  const names = inside.split('/').filter((name) => name !== '');
  const base = join(root, point);
  if (names.includes('..')) return [base];
  return Array.from({ length: names.length + 1 }, (_, depth) => join(base, ...names.slice(0, depth)));
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
