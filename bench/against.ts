/** Another commit of this repository as a relay of the bench: built once and kept, with the compiler and the Node of this run. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { derplaneIn, type Peer } from './peers.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const cache = join(root, '.cache/bench-against');

/** Builds `revision` unless that was done before. Throws an error with one line when it does not exist or does not build. */
export function revisionPeer(revision: string): Peer {
  const commit = git(['rev-parse', '--verify', '--quiet', '--end-of-options', `${revision}^{commit}`]);
  if (commit === undefined) throw new Error(`--against ${revision}: no such commit here`);
  const short = commit.slice(0, 7);
  const folder = join(cache, `${commit}${process.env['CXX'] ? `-${process.env['CXX'].replaceAll(/\W+/g, '_')}` : ''}`);
  if (!existsSync(folder)) build(commit, short, folder);
  return { ...derplaneIn(folder, short), reference: true };
}

/** A folder with the final name is a finished build. */
function build(commit: string, short: string, folder: string): void {
  const unfinished = `${folder}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  console.error(`bench: building ${short} in ${folder}, once`);
  const steps: [command: string, args: string[]][] = [
    ['sh', ['-c', 'git -C "$1" archive "$2" | tar -x', 'sh', root, commit]],
    ['npm', ['ci', '--no-audit', '--no-fund']],
    ['npm', ['run', '--silent', 'build']],
    [process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'bench/tsconfig.json']],
  ];
  for (const [command, args] of steps) {
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: unfinished, encoding: 'utf8' });
    if (status === 0) continue;
    console.error(`${stdout ?? ''}${stderr ?? ''}`);
    throw new Error(`--against: ${short} cannot be built: ${[command, ...args].join(' ')} failed`);
  }
  renameSync(unfinished, folder);
}

/** What git prints; undefined when it fails. */
function git(args: string[]): string | undefined {
  const { status, stdout } = spawnSync('git', args, { cwd: root, encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}
