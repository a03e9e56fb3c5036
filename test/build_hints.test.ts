/** What `npm run build` says where something that it needs is missing. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  constants,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { freePort } from './support/ports.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const TOOLS = ['c++', 'make', 'python3'];

/** A copy of what the build reads, and a PATH with the given commands only. */
function checkout(commands: string[]): { folder: string; bin: string } {
  const folder = mkdtempSync(join(tmpdir(), 'derplane-build-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const file of ['package.json', 'package-lock.json', 'binding.gyp', 'native/build.mjs']) {
    mkdirSync(join(folder, file, '..'), { recursive: true });
    copyFileSync(join(root, file), join(folder, file));
  }
  for (const name of ['binding', 'core', 'io', 'tls']) mkdirSync(join(folder, 'native', name));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  for (const name of ['sh', 'env', ...commands]) wrap(bin, name, pathOf(name));
  wrap(bin, 'node', process.execPath);
  return { folder, bin };
}

/** A script instead of a link: some commands look at the name or the folder by which they are called. */
function wrap(bin: string, name: string, target: string): void {
  writeFileSync(join(bin, name), `#!/bin/sh\nexec '${target}' "$@"\n`);
  chmodSync(join(bin, name), 0o755);
}

function pathOf(name: string): string {
  const [program, args] =
    name === 'python3' // may be a script that needs the whole PATH to find the interpreter
      ? ['python3', ['-c', 'import sys; print(sys.executable)']]
      : ['sh', ['-c', 'command -v "$1"', 'sh', name]];
  const { stdout } = spawnSync(program, args, { encoding: 'utf8' });
  if (!stdout) throw new Error(`this test needs ${name}`);
  return stdout.trim();
}

interface Build {
  status: number | null;
  /** The lines that the build itself wrote. */
  lines: string[];
}

/** As `npm start` builds; the environment is made anew, so that nothing of this machine's helps. */
function silentBuild({ folder, bin }: { folder: string; bin: string }, env: NodeJS.ProcessEnv = {}): Build {
  const { status, stdout, stderr } = spawnSync(pathOf('npm'), ['run', '--silent', 'build:native'], {
    cwd: folder,
    env: { PATH: bin, HOME: folder, ...env },
    encoding: 'utf8',
  });
  return { status, lines: `${stdout}${stderr}`.split('\n').filter((line) => line !== '') };
}

test.each([
  ['a compiler', TOOLS.slice(1), 'a C++20 compiler (c++ or g++ or clang++)'],
  ['make', ['c++', 'python3'], 'make'],
  ['python3', ['c++', 'make'], 'python3'],
  ['all of them', [], 'a C++20 compiler (c++ or g++ or clang++), make, python3'],
])('a silent build without %s says in one line what to install', (_, commands, missing) => {
  const { status, lines } = silentBuild(checkout(commands));
  expect(status).toBe(1);
  expect(lines).toEqual([expect.stringContaining(`build: the native addon needs ${missing}: not found; install`)]);
  expect(lines[0]).toContain('apt-get install g++ make python3');
});

test('a silent build without headers of Node, and without a network, says in one line what to install', async () => {
  const made = checkout(TOOLS);
  // Node looks for its headers beside itself, so here it is far away from them.
  const node = join(made.folder, 'elsewhere/bin/node');
  mkdirSync(join(node, '..'), { recursive: true });
  copyFileSync(process.execPath, node, constants.COPYFILE_FICLONE);
  wrap(made.bin, 'node', node);
  const { status, lines } = silentBuild(made, {
    npm_config_devdir: join(made.folder, 'headers'),
    npm_config_disturl: `http://127.0.0.1:${await freePort()}`,
  });
  expect(status).toBe(1);
  expect(lines).toEqual([
    expect.stringContaining('build: compiling the native addon'),
    expect.stringMatching(/^build: the headers of Node v\S+ are not in .* cannot be downloaded; install .*libnode-dev/),
  ]);
});

test('CXX may be a command with arguments', () => {
  const made = checkout(TOOLS);
  const { lines } = silentBuild(made, { CXX: 'env -u NOTHING missing-compiler' });
  expect(lines).toEqual([expect.stringContaining('a C++20 compiler (env -u NOTHING missing-compiler): not found')]);
});
