/**
 * Builds and runs the C++ tests:
 * `node test/native/run.mjs [--sanitize=address,undefined|--sanitize=thread] [--only NAME] [--verbose]`.
 *
 * Every `*_test.cc` here is a program of its own, linked with native/core and with those files of native/io that need no libuv.
 * `--only NAME` runs the programs and the tests whose name contains NAME. Needs Node and a C++ compiler (`CXX`, else c++).
 * On a terminal it prints a line for each program that fails and one line in total; elsewhere, and with `--verbose`, one for each program.
 * `DERPLANE_WERROR=1` makes compiler warnings errors, as CI does.
 * Objects lie in build/native-tests/VARIANT and are compiled again when they, a header or the flags are newer.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('../..', import.meta.url));
const JOBS = 2;
/** Of native/io: what compiles and links without libuv. */
const IO_SOURCES = ['address.cc', 'connection.cc', 'handshake_budget.cc', 'handshake_roster.cc', 'relay_core.cc'];
/** A program that runs longer than this hangs. */
const RUN_LIMIT_MS = 180_000;
const SANITIZERS = ['address,undefined', 'address', 'undefined', 'thread'];

const { values: options } = parseArgs({
  options: { sanitize: { type: 'string' }, only: { type: 'string' }, verbose: { type: 'boolean', default: false } },
});
if (options.sanitize !== undefined && !SANITIZERS.includes(options.sanitize)) {
  console.error(`run.mjs: unknown --sanitize ${options.sanitize}, one of: ${SANITIZERS.join(' ')}`);
  process.exit(2);
}

/** Program and first arguments: CXX may be `ccache g++`. */
const compiler = (process.env.CXX || 'c++').trim().split(/\s+/);
const flags = ['-std=c++20', '-O1', '-g', '-Wall', '-Wextra', '-Wconversion', '-fno-exceptions', '-pthread'];
if (process.env.DERPLANE_WERROR) flags.push('-Werror');
const detailed = options.verbose || options.only !== undefined || !process.stdout.isTTY || process.env.CI === 'true';
if (options.sanitize) {
  flags.push(`-fsanitize=${options.sanitize}`, '-fno-omit-frame-pointer');
  if (options.sanitize.includes('undefined')) flags.push('-fno-sanitize-recover=all');
  // GCC warns that ThreadSanitizer does not know fences; the tests make their races visible by other means (see ring_test.cc).
  if (options.sanitize === 'thread') flags.push('-Wno-tsan');
}
const variant = options.sanitize?.replace(',', '-') ?? 'plain';
const folder = join(root, 'build/native-tests', variant);
mkdirSync(folder, { recursive: true });

try {
  process.exit(await main());
} catch (error) {
  console.error(`run.mjs: ${error.message}`);
  process.exit(1);
}

async function main() {
  const core = sources('native/core');
  const io = IO_SOURCES.map((file) => `native/io/${file}`);
  const all = sources('test/native');
  const tests = all.filter((file) => file.endsWith('_test.cc'));
  const support = all.filter((file) => !file.endsWith('_test.cc'));
  const wanted = tests.filter((file) => programMatches(file) || testNames(file).some(matches));
  if (wanted.length === 0) throw new Error(`no test is named like ${options.only}`);

  const objects = new Map();
  await inParallel([...wanted, ...support, ...core, ...io], async (file) => objects.set(file, await compile(file)));
  const shared = [...support, ...core, ...io].map((file) => objects.get(file));
  const results = await inParallel(wanted, async (file) =>
    runProgram(await link(file, [objects.get(file), ...shared]), programMatches(file)),
  );
  const passed = results.reduce((sum, r) => sum + r.passed, 0);
  const failed = results.reduce((sum, r) => sum + r.failed, 0);
  console.log(`${detailed ? '' : 'native tests: '}${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

function sources(path) {
  return readdirSync(join(root, path))
    .filter((file) => file.endsWith('.cc'))
    .sort()
    .map((file) => `${path}/${file}`);
}

function matches(name) {
  return options.only === undefined || name.includes(options.only);
}

function programMatches(file) {
  return matches(basename(file, '.cc'));
}

function testNames(file) {
  return [...readFileSync(join(root, file), 'utf8').matchAll(/^TEST\("(.*?)"\)/gm)].map((match) => match[1]);
}

/** Compiles one source, unless an object of the same contents is there; returns the object's path. */
async function compile(file) {
  const object = join(folder, `${basename(file, '.cc')}-${fingerprint(file)}.o`);
  if (!existsSync(object)) {
    await tool([...flags, '-I', root, '-c', file, '-o', `${object}.tmp`]);
    renameSync(`${object}.tmp`, object);
  }
  return object;
}

async function link(file, objects) {
  const hash = createHash('sha256').update(objects.join('\n')).digest('hex').slice(0, 16);
  const program = join(folder, `${basename(file, '.cc')}-${hash}`);
  if (!existsSync(program)) {
    await tool([...flags, ...objects, '-o', `${program}.tmp`]);
    renameSync(`${program}.tmp`, program);
  }
  return program;
}

/** Hash of what an object is made of: the source, all headers that it includes in quotes, compiler and flags. */
function fingerprint(file) {
  const hash = createHash('sha256').update([...compiler, ...flags].join('\n'));
  const seen = new Set();
  const visit = (path) => {
    if (seen.has(path)) return;
    seen.add(path);
    const text = readFileSync(path, 'utf8');
    hash.update(text);
    for (const [, included] of text.matchAll(/^#include "(.*)"/gm)) {
      const beside = join(path, '..', included);
      visit(existsSync(beside) ? beside : join(root, included));
    }
  };
  visit(join(root, file));
  return hash.digest('hex').slice(0, 16);
}

async function tool(args) {
  const { status, output } = await run(compiler[0], [...compiler.slice(1), ...args], {});
  if (status !== 0) throw new Error(`${compiler.join(' ')} failed\n${output}`);
}

/** Runs a test program and prints what it says about failures. */
async function runProgram(program, whole) {
  const args = whole || options.only === undefined ? [] : [options.only];
  const started = Date.now();
  const { status, output } = await run(program, args, { timeout: RUN_LIMIT_MS });
  const lines = output.split('\n');
  const passed = lines.filter((line) => line.startsWith('ok ')).length;
  let failed = lines.filter((line) => line.startsWith('not ok ')).length;
  const name = basename(program).replace(/-[0-9a-f]+$/, '');
  if (status !== 0 && failed === 0) {
    // A crash, a sanitizer's report or a hang: nothing of the output may be lost.
    console.log(output);
    console.log(`${name}: ended with ${status}, after ${passed} tests`);
    failed = 1;
  } else if (failed > 0 || passed === 0) {
    console.log(lines.filter((line) => !line.startsWith('ok ')).join('\n'));
  }
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  if (detailed || failed > 0) console.log(`${name}: ${passed} passed, ${failed} failed, ${seconds} s`);
  return { passed, failed };
}

function run(command, args, { timeout }) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout,
      killSignal: 'SIGABRT',
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    }
    child.on('error', (error) => reject(new Error(`cannot run ${command}: ${error.message}`)));
    child.on('close', (code, signal) => resolve({ status: code ?? signal, output }));
  });
}

/** Runs `work` for every item, JOBS at a time; stops at the first error. */
async function inParallel(items, work) {
  const results = new Array(items.length);
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const i = next++;
      results[i] = await work(items[i]);
    }
  };
  await Promise.all(Array.from({ length: JOBS }, worker));
  return results;
}
