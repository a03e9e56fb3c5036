/** What a relay takes of a machine follows what its container may use. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { cgroupLimits, type Resources, readResources } from '../dist/server/resources.js';
import { planThreads } from '../dist/server/thread_plan.js';

const GIB = 2 ** 30;
const MIB = 2 ** 20;

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'derplane-cgroup-'));
});

afterEach(() => rmSync(root, { recursive: true }));

function files(contents: Record<string, string>): void {
  for (const [name, text] of Object.entries(contents)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
}

const mountV2 = (group = '/', point = '/sys/fs/cgroup') =>
  `30 23 0:26 ${group} ${point} rw,nosuid - cgroup2 cgroup2 rw\n`;
const mountV1 = (names: string, group = '/') =>
  `32 31 0:29 ${group} /sys/fs/cgroup/${names} rw,relatime shared:9 - cgroup cgroup rw,${names}\n`;

describe('of version 2', () => {
  test('the smallest limit from the own group to the top counts', () => {
    files({
      'proc/self/cgroup': '0::/a/b\n',
      'proc/self/mountinfo': `22 1 0:20 / /proc rw - proc proc rw\n${mountV2()}`,
      'sys/fs/cgroup/a/cpu.max': '150000 100000\n',
      'sys/fs/cgroup/a/memory.max': 'max\n',
      'sys/fs/cgroup/a/b/cpu.max': '400000 100000\n',
      'sys/fs/cgroup/a/b/memory.max': `${512 * MIB}\n`,
    });
    expect(cgroupLimits(root)).toEqual({ cpuQuota: 1.5, memory: 512 * MIB });
  });

  test('max is no limit', () => {
    files({
      'proc/self/cgroup': '0::/a\n',
      'proc/self/mountinfo': mountV2(),
      'sys/fs/cgroup/a/cpu.max': 'max 100000\n',
      'sys/fs/cgroup/a/memory.max': 'max\n',
    });
    expect(cgroupLimits(root)).toEqual({ cpuQuota: undefined, memory: undefined });
  });

  test.each([
    ['its own namespace', '/', '/'],
    ["the host's namespace", '/docker/x', '/docker/x'],
    ['a namespace below its group', '/../..', '/../..'],
    ['a group that was moved', '/elsewhere', '/docker/x'],
  ])('a container that has %s sees its group at the mount point', (_, path, group) => {
    files({
      'proc/self/cgroup': `0::${path}\n`,
      'proc/self/mountinfo': mountV2(group, '/my\\040groups'),
      'my groups/cpu.max': '50000 100000\n',
    });
    expect(cgroupLimits(root).cpuQuota).toBe(0.5);
  });
});

describe('of version 1', () => {
  test('controllers have hierarchies of their own, also where two share one', () => {
    files({
      'proc/self/cgroup': '9:memory:/m/n\n4:cpu,cpuacct:/c\n1:name=systemd:/\n0::/\n',
      'proc/self/mountinfo': mountV1('cpu,cpuacct') + mountV1('memory') + mountV2('/', '/sys/fs/cgroup/unified'),
      'sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us': '50000\n',
      'sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us': '100000\n',
      'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '-1\n',
      'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000\n',
      'sys/fs/cgroup/memory/m/memory.limit_in_bytes': `${GIB}\n`,
      'sys/fs/cgroup/memory/m/n/memory.limit_in_bytes': '9223372036854771712\n',
    });
    expect(cgroupLimits(root)).toEqual({ cpuQuota: 0.5, memory: GIB });
  });

  test('nothing readable is no limit', () => {
    expect(cgroupLimits(root)).toEqual({ cpuQuota: undefined, memory: undefined });
    files({ 'proc/self/cgroup': 'nonsense\n:::\n4:cpu:/x', 'proc/self/mountinfo': 'nonsense - \n- -\n' });
    expect(cgroupLimits(root)).toEqual({ cpuQuota: undefined, memory: undefined });
  });
});

test('this machine is read', () => {
  const { machineCpus, allowedCpus, memory } = readResources();
  expect(machineCpus).toBeGreaterThanOrEqual(1);
  expect(allowedCpus).toBeGreaterThanOrEqual(1);
  expect(memory).toBeGreaterThan(0);
});

describe('the plan', () => {
  const machine: Resources = { machineCpus: 64, allowedCpus: 64, cpuQuota: undefined, memory: 256 * GIB };
  const wishes = { shards: undefined, handshakeThreads: undefined, ringBytes: 64 * MIB };
  const plan = (resources: Partial<Resources>, more: object = {}) =>
    planThreads({ ...wishes, ...more }, () => ({ ...machine, ...resources })).text;

  test.each([
    [{}, '16 shards, 8 handshake threads (64 CPUs, rings of 64 MiB)'],
    [{ machineCpus: 4, allowedCpus: 4 }, '4 shards, 1 handshake thread (4 CPUs)'],
    [{ machineCpus: 1, allowedCpus: 1 }, '1 shard, 1 handshake thread (1 CPU)'],
    [{ allowedCpus: 8 }, '8 shards, 2 handshake threads (8 of 64 CPUs allowed)'],
    [{ cpuQuota: 0.5 }, '1 shard, 1 handshake thread (CPU quota 0.5 of 64 CPUs)'],
    [{ cpuQuota: 0.05 }, '1 shard, 1 handshake thread (CPU quota 0.05 of 64 CPUs)'],
    [{ cpuQuota: 1.5 }, '2 shards, 1 handshake thread (CPU quota 1.5 of 64 CPUs)'],
    [{ cpuQuota: 8, allowedCpus: 2 }, '2 shards, 1 handshake thread (2 of 64 CPUs allowed)'],
    [{ memory: 256 * MIB, cpuQuota: 8 }, '3 shards, 1 handshake thread (CPU quota 8 of 64 CPUs, memory limit 256 MiB)'],
    [{ memory: 64 * MIB }, '1 shard, 1 handshake thread (64 CPUs, rings of 64 MiB, memory limit 64 MiB)'],
  ])('for %j is %s', (resources, text) => {
    expect(plan(resources)).toBe(text);
  });

  test.each([
    [{ shards: 3 }, '3 shards, 1 handshake thread (shards as set, CPU quota 0.5 of 64 CPUs)'],
    [{ handshakeThreads: 3 }, '1 shard, 3 handshake threads (handshake threads as set, CPU quota 0.5 of 64 CPUs)'],
    [{ shards: 63, handshakeThreads: 2 }, '63 shards, 2 handshake threads (as set)'],
  ])('is overridden by %j', (more, text) => {
    expect(plan({ cpuQuota: 0.5 }, more)).toBe(text);
  });

  test('has more shards where the rings may take more', () => {
    expect(plan({}, { ringBytes: GIB })).toMatch(/^63 shards, 8 handshake threads \(64 CPUs\)$/);
    expect(plan({}, { ringBytes: 0 })).toMatch(/^1 shard, /);
  });
});
