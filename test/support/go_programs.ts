/** Programs in Go that tests run, built once into `.cache/go-bin`. */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
 * Builds those of the programs that are not built yet. They must be of one module. That is required by a module made for this, since
 * `go install PACKAGE@VERSION` also asks for the list of the module's versions, which not every proxy has.
 */
export async function build(programs: GoProgram[], timeout: number): Promise<void> {
  const [first, ...others] = programs.filter((program) => !isBuilt(program));
  if (first === undefined) return;
  console.log(`building ${[first, ...others].map(({ name }) => name).join(', ')}: minutes the first time`);
  const folder = await mkdtemp(join(tmpdir(), 'derplane-go-build-'));
  try {
    // From Go 1.17 on, requirements of requirements need not be read.
    await writeFile(join(folder, 'go.mod'), `module build\n\ngo 1.26\n\nrequire ${first.module} v${first.version}\n`);
    const packages = [first, ...others].map((program) => `${program.module}/${program.folder}`);
    const args = ['install', '-mod=mod', '-p', '2', ...packages];
    await promisify(execFile)('go', args, { cwd: folder, env: environment, timeout });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Why the programs cannot be had, or `undefined` when they can: built already, or with a Go to build them. */
export function whyMissing(programs: GoProgram[]): string | undefined {
  if (programs.every(isBuilt)) return undefined;
  const reason = whyNoGo();
  return reason && `${programs.map(({ name }) => name).join(', ')}: not built, and ${reason}`;
}

/** Why nothing can be built, or `undefined`. */
export function whyNoGo(): string | undefined {
  const go = spawnSync('go', ['version'], { env: environment, encoding: 'utf8' });
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
