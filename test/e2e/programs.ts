/** What the suite needs besides derplane: Tailscale's node, its prober, headscale, and namespaces. */
import { spawnSync } from 'node:child_process';
import { GO_DERPER_VERSION, newestOf } from '../support/go_derper.js';
import { build, type GoProgram, pathOf, skipBecause, whyMissing } from '../support/go_programs.js';

/** Milliseconds that building all of it may take, downloads included. */
const BUILD_TIMEOUT = 1_500_000;

const TAILSCALE: GoProgram[] = ['tailscaled', 'tailscale', 'derpprobe'].map((name) => ({
  name,
  module: 'tailscale.com',
  version: GO_DERPER_VERSION,
  folder: `cmd/${name}`,
}));

/** The prober again, of the newest version. */
const NEWEST_PROBE = newestOf('derpprobe');

const HEADSCALE: GoProgram = {
  name: 'headscale',
  module: 'github.com/juanfont/headscale',
  version: '0.29.2',
  folder: 'cmd/headscale',
};

/** Why the suite cannot run here, or `undefined`. What can be installed must be there in CI; what the kernel refuses nobody can install. */
export const e2eMissing: string | undefined =
  skipBecause(whyNoNetwork() ?? whyMissing([...TAILSCALE, HEADSCALE]) ?? whyMissing([NEWEST_PROBE])) ??
  whatKernelRefuses();

/** Why nothing can run in network namespaces here, or `undefined`. */
export const networkMissing: string | undefined = skipBecause(whyNoNetwork()) ?? whatKernelRefuses();

/** Why a command cannot be run here, or `undefined`. */
export function commandMissing(command: string, flag: string): string | undefined {
  const { error } = spawnSync(command, [flag]);
  return skipBecause(error && `the test needs the command ${command}: ${error.message}`);
}

/** Builds what is not built yet: minutes the first time. */
export async function buildPrograms(): Promise<void> {
  if (e2eMissing !== undefined) return;
  await build(TAILSCALE, BUILD_TIMEOUT);
  await build([HEADSCALE], BUILD_TIMEOUT);
  await build([NEWEST_PROBE], BUILD_TIMEOUT);
}

/** Path of one of the programs. */
export function program(name: string): string {
  const found = [...TAILSCALE, HEADSCALE, NEWEST_PROBE].find((candidate) => candidate.name === name);
  if (found === undefined) throw new Error(`${name} is none of the programs that this suite builds`);
  return pathOf(found);
}

function whyNoNetwork(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  for (const [command, flag] of [
    ['ip', '-V'],
    ['setpriv', '--version'],
  ] as const) {
    const { error } = spawnSync(command, [flag]);
    if (error) return `the suite needs the command ${command}: ${error.message}`;
  }
  return undefined;
}

/** Says so if this machine makes no namespaces: a container may not let even root make them. */
function whatKernelRefuses(): string | undefined {
  const name = `derplane-e2e-${process.pid}-try`;
  try {
    for (const args of [
      ['netns', 'add', name],
      ['-n', name, 'link', 'add', 'try0', 'type', 'bridge'],
      ['-n', name, 'link', 'add', 'try1', 'type', 'veth', 'peer', 'name', 'try2'],
    ]) {
      const { status, stderr } = spawnSync('ip', args, { encoding: 'utf8' });
      if (status === 0) continue;
      const reason = `this machine makes no network namespaces: ip ${args.join(' ')}: ${stderr.trim()}`;
      console.warn(`skipped: ${reason}`);
      return reason;
    }
    return undefined;
  } finally {
    spawnSync('ip', ['netns', 'delete', name]);
  }
}
