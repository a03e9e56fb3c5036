/**
 * Builds the addon with node-gyp when something changed: `node native/build.mjs [--debug] [-v]`.
 *
 * Prints nothing when everything is up to date. Shows the compiler's output only when it fails, or with `-v`.
 * `CXX` names the compiler. `DERPLANE_WERROR=1` makes compiler warnings errors, as CI does.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const buildFolder = join(root, 'build');
const stampFile = join(buildFolder, 'derplane-build.json');
const lockFile = join(buildFolder, 'derplane-build.lock');
/** The sources of all addons; what node-gyp makes of them lies in build/Release or build/Debug. */
const SOURCE_FOLDERS = ['native/binding', 'native/core', 'native/io', 'native/stun', 'native/tls', 'bench/native'];
/** An installed package has no package-lock.json. */
const SOURCE_FILES = ['binding.gyp', 'package-lock.json'].filter((file) => existsSync(join(root, file)));

/** What to install where a tool is missing. */
const INSTALL =
  'install what is missing, for example: apt-get install g++ make python3 (Debian, Ubuntu); dnf install gcc-c++ make python3 (Fedora); apk add g++ make python3 linux-headers (Alpine)';
/** What to install where Node's headers are missing. */
const INSTALL_HEADERS =
  'install the headers of this Node: apt-get install libnode-dev (Debian, Ubuntu); dnf install nodejs-devel (Fedora); apk add nodejs-dev (Alpine); archives from nodejs.org include them. Or set npm_config_nodedir to a folder that has include/node';
/** How node-gyp reports that it cannot download headers. */
const NO_HEADERS =
  /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|FetchError|related to network connectivity|response downloading|certificate/;

const debug = process.argv.includes('--debug');
const verbose = process.argv.includes('-v');
const mode = debug ? 'Debug' : 'Release';
/** `npm run --silent` would silence node-gyp, too, whose messages say what is wrong. */
const { npm_config_loglevel: _, ...gypEnvironment } = process.env;
const gypOptions = { cwd: root, env: gypEnvironment };

try {
  if (!isUpToDate()) await buildLocked();
} catch (error) {
  console.error(`build: ${error.message}`);
  process.exit(1);
}

/** Builds, unless another build that ran meanwhile has done it. */
async function buildLocked() {
  mkdirSync(buildFolder, { recursive: true });
  await lock();
  try {
    if (!isUpToDate()) build();
  } finally {
    rmSync(lockFile, { force: true });
  }
}

/** What the result depends on besides Node and the sources' times. */
function inputs() {
  return {
    arch: process.arch,
    cxx: process.env.CXX ?? '',
    werror: process.env.DERPLANE_WERROR ?? '',
    mode,
    sources: sources(),
  };
}

function sources() {
  const inFolders = SOURCE_FOLDERS.filter((folder) => existsSync(join(root, folder))).flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => /\.(?:h|cc)$/.test(file))
      .map((file) => join(folder, file)),
  );
  return [...SOURCE_FILES, ...inFolders].sort();
}

/** The addons of this mode that exist. */
function products() {
  const folder = join(buildFolder, mode);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((file) => file.endsWith('.node'))
    .map((file) => join(folder, file));
}

function isUpToDate() {
  if (!stampFits() || !products().some((file) => file.endsWith('/derplane.node'))) return false;
  const built = statSync(stampFile).mtimeMs;
  return sources().every((file) => statSync(join(root, file)).mtimeMs < built);
}

/** An addon that was built with the headers of one Node serves that one and newer ones: Node-API, libuv 1 and OpenSSL 3 see to that. */
function stampFits() {
  if (!existsSync(stampFile)) return false;
  const { node, ...built } = JSON.parse(readFileSync(stampFile, 'utf8'));
  return isDeepStrictEqual(built, inputs()) && compareVersions(node, process.versions.node) <= 0;
}

function compareVersions(a, b) {
  const [left, right] = [a, b].map((version) => String(version).split('.').map(Number));
  return left[0] - right[0] || left[1] - right[1] || left[2] - right[2];
}

function build() {
  requireTools();
  rmSync(stampFile, { force: true });
  // A source that changes while the compiler runs must count as newer than the stamp.
  const startedAt = new Date();
  console.error(`build: compiling the native addon (${mode}), about a minute the first time`);
  const gyp = nodeGyp();
  const common = [debug ? '--debug' : '--release', ...headers()];
  configure([gyp, 'configure', ...common]);
  compile([gyp, 'build', ...common, '-j', String(availableParallelism())]);
  if (products().length === 0)
    throw new Error(`node-gyp succeeded, but there is no addon in ${join(buildFolder, mode)}`);
  writeFileSync(stampFile, JSON.stringify({ node: process.versions.node, ...inputs() }));
  utimesSync(stampFile, startedAt, startedAt);
}

function nodeGyp() {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('node-gyp/package.json')), 'bin/node-gyp.js');
  } catch (cause) {
    throw new Error('node-gyp is not installed; run `npm ci` first', { cause });
  }
}

/** One clear line when a tool that node-gyp needs is missing. */
function requireTools() {
  const found = (commands) =>
    commands.some((command) => {
      const [program, ...args] = command.trim().split(/\s+/);
      return spawnSync(program, [...args, '--version']).status === 0;
    });
  const compilers = process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++'];
  const missing = [
    found(compilers) ? '' : `a C++20 compiler (${compilers.join(' or ')})`,
    found(['make', 'gmake']) ? '' : 'make',
    found(process.env.PYTHON ? [process.env.PYTHON] : ['python3', 'python']) ? '' : 'python3',
  ].filter((name) => name !== '');
  if (missing.length > 0) throw new Error(`the native addon needs ${missing.join(', ')}: not found; ${INSTALL}`);
}

/** Node's headers from beside the running `node`, where it brings them; else node-gyp downloads them. */
function headers() {
  const prefix = dirname(dirname(process.execPath));
  const versionHeader = join(prefix, 'include/node/node_version.h');
  if (!existsSync(versionHeader)) return [];
  const text = readFileSync(versionHeader, 'utf8');
  const part = (name) => text.match(new RegExp(`^#define NODE_${name}_VERSION (\\d+)$`, 'm'))?.[1];
  const version = `v${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}`;
  return version === process.version ? [`--nodedir=${prefix}`] : [];
}

/** Writes the makefiles; this is the step that may download headers. */
function configure(args) {
  const output = runQuietly(args);
  if (output === undefined) return;
  const noHeaders = NO_HEADERS.test(output);
  if (verbose || !noHeaders) console.error(output);
  if (!noHeaders) throw new Error('node-gyp cannot configure the build');
  const folder = join(dirname(dirname(process.execPath)), 'include/node');
  throw new Error(
    `the headers of Node ${process.version} are not in ${folder} and cannot be downloaded; ${INSTALL_HEADERS}`,
  );
}

function compile(args) {
  const output = verbose ? runVisibly(args) : runQuietly(args);
  if (output === undefined) return;
  if (output !== '') console.error(output);
  throw new Error('the native addon does not compile');
}

/** Runs node with `args`. Returns what it printed if it failed, else undefined. */
function runQuietly(args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    ...gypOptions,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status === 0) {
    if (verbose) process.stderr.write(stdout + stderr);
    return undefined;
  }
  return `${stdout}${stderr}`;
}

/** The same with its output on the terminal. */
function runVisibly(args) {
  return spawnSync(process.execPath, args, { ...gypOptions, stdio: 'inherit' }).status === 0 ? undefined : '';
}

/** Waits for another build in this folder; the lock of a dead process does not count. */
async function lock() {
  for (;;) {
    try {
      writeFileSync(lockFile, String(process.pid), { flag: 'wx' });
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    if (!isAlive(lockFile)) rmSync(lockFile, { force: true });
    else await sleep(200);
  }
}

function isAlive(file) {
  let pid;
  try {
    pid = Number(readFileSync(file, 'utf8'));
  } catch {
    return false; // it was released meanwhile
  }
  // Between its making and its writing the file is empty: somebody is about to build.
  if (pid === 0) return Date.now() - statSync(file).mtimeMs < 5_000;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}
