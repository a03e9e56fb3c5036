/** Programs in Go that tests run, built once into `.cache/go-bin`. */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const goBin = fileURLToPath(new URL('../../.cache/go-bin/', import.meta.url));
const ownModule = fileURLToPath(new URL('../interop/', import.meta.url));
const environment = { ...process.env, GOBIN: goBin, GOTOOLCHAIN: 'local' };

/** A program of a public module. */
export interface GoProgram {
  readonly name: string;
  /** The module's path. */
  readonly module: string;
  /** The module's version, without `v`. */
  readonly version: string;
  /** Where the main package is in the module. */
  readonly folder: string;
  /** Go that the module needs, fetched by Go itself. Default: the Go that is there. */
  readonly toolchain?: string;
  /** Modules in place of others, as `go.mod` writes them after `replace`. */
  readonly replace?: readonly string[];
}

function environmentOf({ toolchain }: Pick<GoProgram, 'toolchain'>): NodeJS.ProcessEnv {
  return { ...environment, GOTOOLCHAIN: toolchain ?? 'local' };
}

/** Where the program is once it is built. */
export function pathOf(program: GoProgram): string {
  return join(goBin, program.name);
}

/** Tells whether the program is there and of its version, which Go writes into what it builds. */
function isBuilt(program: GoProgram): boolean {
  const path = pathOf(program);
  return existsSync(path) && readFileSync(path).includes(`mod\t${program.module}\tv${program.version}\t`);
}

/**
 * Builds those of the programs that are not built yet. They must be of one module, version and toolchain. That is required by a module made for this, since
 * `go install PACKAGE@VERSION` also asks for the list of the module's versions, which not every proxy has.
 */
export async function build(programs: GoProgram[], timeout: number): Promise<void> {
  const [first, ...others] = programs.filter((program) => !isBuilt(program));
  if (first === undefined) return;
  console.log(`building ${[first, ...others].map(({ name }) => name).join(', ')}: minutes the first time`);
  const folder = await mkdtemp(join(tmpdir(), 'derplane-go-build-'));
  try {
    // From Go 1.17 on, requirements of requirements need not be read.
    const replaced = (first.replace ?? []).map((line) => `replace ${line}\n`).join('');
    const go = first.toolchain?.replace('go', '') ?? '1.26';
    const requirement = `require ${first.module} v${first.version}\n${replaced}`;
    await writeFile(join(folder, 'go.mod'), `module build\n\ngo ${go}\n\n${requirement}`);
    const packages = [first, ...others].map((program) => `${program.module}/${program.folder}`);
    const args = ['install', '-mod=mod', '-p', '2', ...packages];
    const env = { ...environmentOf(first), GOBIN: folder };
    await promisify(execFile)('go', args, { cwd: folder, env, timeout });
    await mkdir(goBin, { recursive: true });
    for (const program of [first, ...others]) {
      // Another process may be building the same: each puts a whole file into place.
      const whole = `${pathOf(program)}.${process.pid}`;
      await copyFile(join(folder, basename(program.folder)), whole);
      await rename(whole, pathOf(program));
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Why the programs cannot be had, or `undefined` when they can: built already, or with a Go to build them. */
export function whyMissing(programs: GoProgram[]): string | undefined {
  if (programs.every(isBuilt)) return undefined;
  const reason = whyNoGo(programs[0]);
  return reason && `${programs.map(({ name }) => name).join(', ')}: not built, and ${reason}`;
}

/** Why nothing can be built, or `undefined`. */
export function whyNoGo(program: Pick<GoProgram, 'toolchain'> = {}): string | undefined {
  const go = spawnSync('go', ['version'], { env: environmentOf(program), encoding: 'utf8' });
  return go.status === 0 ? undefined : `there is no Go to build with: ${go.error?.message ?? go.stderr}`;
}

/**
 * Builds a program of `test/interop`; Go's own cache makes this quick when nothing changed.
 *
 * @returns its path
 */
export async function buildOwn(name: string, timeout: number): Promise<string> {
  const path = join(goBin, name);
  const args = ['build', '-p', '2', '-o', path, `./${name}`];
  await promisify(execFile)('go', args, { cwd: ownModule, env: environment, timeout });
  return path;
}

/** Passes the reason for skipping tests on and says it; with `CI=true` it throws, so that CI never passes by skipping. */
export function skipBecause(reason: string | undefined): string | undefined {
  if (reason === undefined) return undefined;
  if (process.env.CI === 'true') throw new Error(reason);
  console.warn(`skipped: ${reason}`);
  return reason;
}
