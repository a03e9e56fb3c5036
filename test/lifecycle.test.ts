/** Relays come and go within a process, and a process may end at any moment. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const program = fileURLToPath(new URL('support/lifecycle_child.mjs', import.meta.url));
const MIB = 1024 * 1024;

interface Usage {
  cycle: number;
  fds: number;
  threads: number;
  rss: number;
}

describe.each([1, 2, 4])('a process with a relay of %i shard(s)', (shards) => {
  it.each(['close and end', 'close with clients and end'])('ends by itself: %s', async (scenario) => {
    const { code, signal, lines } = await run(scenario, shards);
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    expect(lines.at(-1)).toEqual({ done: scenario });
  });

  it.each([
    'exit at once',
    'exit when listening',
    'exit in traffic',
    'exit in handshakes',
    'exit while closing',
    'exit with several relays',
  ])('ends with the code that it gave: %s', async (scenario) => {
    expect(await run(scenario, shards)).toMatchObject({ code: 7, signal: null });
  });

  it('ends with 1 for an uncaught error in traffic, and shows it', async () => {
    const { code, signal, stderr } = await run('uncaught error in traffic', shards);
    expect({ code, signal }).toEqual({ code: 1, signal: null });
    expect(stderr).toContain('Error: on purpose');
  });

  it('survives that the thread of a relay is terminated in traffic, 5 times', async () => {
    expect(await run('terminate workers', shards, 5)).toMatchObject({ code: 0, signal: null });
  });
});

it.each([
  ['cycles', 200],
  ['hasty cycles', 300],
])(
  '%s: %i relays one after another leave no descriptor, thread or memory behind',
  { timeout: 240_000 },
  async (scenario, count) => {
    const { code, signal, lines } = await run(scenario, 2, count);
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    const usages = lines.filter((line): line is Usage => typeof line === 'object' && line !== null && 'fds' in line);
    expect(usages).toHaveLength(count / 20);
    // The first 80 fill caches and let the heaps find their size.
    const [early, late] = [usages[3] as Usage, usages.at(-1) as Usage];
    expect(late.fds).toBeLessThanOrEqual(early.fds);
    // A thread that was joined may show for a moment longer; one left behind each time would be 100 and more.
    expect(late.threads).toBeLessThan(early.threads + 10);
    expect(late.rss - early.rss).toBeLessThan(16 * MIB);
  },
);

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** What it printed, parsed. */
  lines: unknown[];
  stderr: string;
}

/** Runs a scenario of the child to its end. */
async function run(scenario: string, shards: number, count = 0): Promise<Ended> {
  // A young generation of fixed size: V8 lets it grow by 16 MiB once, which would look like memory left behind.
  const flags = ['--expose-gc', '--max-semi-space-size=1'];
  const child = spawn(process.execPath, [...flags, program, scenario, String(shards), String(count)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: unknown[] = [];
  let stderr = '';
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line)));
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const killer = setTimeout(() => child.kill('SIGKILL'), 200_000);
  const [code, signal] = await once(child, 'close');
  clearTimeout(killer);
  if (code !== 0 && code !== 7 && stderr) console.error(`${scenario}, ${shards} shard(s): ${stderr}`);
  return { code, signal, lines, stderr };
}
