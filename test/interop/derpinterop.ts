/** Builds and runs `derpinterop`, the program in Go that drives a relay with Tailscale's own client. */
import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const source = fileURLToPath(new URL('.', import.meta.url));
const program = fileURLToPath(new URL('../../.cache/derpinterop', import.meta.url));
const environment = { ...process.env, GOTOOLCHAIN: 'local' };

/** Milliseconds that a first build may take, downloads included. */
export const BUILD_TIMEOUT = 600_000;

/** Milliseconds that one check may take. */
const CHECK_TIMEOUT = 120_000;

/** Why the program cannot be built, or `undefined`. With `CI=true` a missing Go is an error. */
export const goMissing: string | undefined = whyMissing();

export interface CheckOptions {
  url: string;
  /** Identities to use first, as `privkey:` texts. */
  keys?: string[];
  meshKey?: string;
}

/** Builds the program; Go's own cache makes this quick when nothing changed. */
export async function buildDerpinterop(): Promise<void> {
  await promisify(execFile)('go', ['build', '-p', '2', '-o', program, './derpinterop'], {
    cwd: source,
    env: environment,
    timeout: BUILD_TIMEOUT,
  });
}

/** Runs one check; rejects with what the program said when it failed. */
export async function runCheck(check: string, options: CheckOptions): Promise<void> {
  const flags = ['-url', options.url];
  if (options.keys) flags.push('-keys', options.keys.join(','));
  if (options.meshKey !== undefined) flags.push('-mesh-key', options.meshKey);
  try {
    await promisify(execFile)(program, [...flags, check], { timeout: CHECK_TIMEOUT });
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as Error & { stdout?: string; stderr?: string };
    throw new Error(`${check}: ${stdout.trim() || stderr.trim() || message}`);
  }
}

function whyMissing(): string | undefined {
  const go = spawnSync('go', ['version'], { env: environment, encoding: 'utf8' });
  if (go.status === 0) return undefined;
  const reason = `no Go to build test/interop with: ${go.error?.message ?? go.stderr}`;
  if (process.env.CI === 'true') throw new Error(reason);
  console.warn(`skipped: ${reason}`);
  return reason;
}
