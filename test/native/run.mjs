/**
 * Builds and runs the C++ tests:
 * `node test/native/run.mjs [--sanitize=address,undefined|--sanitize=thread] [--only NAME] [--verbose]`.
 *
 * Every `*_test.cc` here is a program of its own, linked with native/core, files of native/io, and fake_uv.cc in place of libuv.
 * `--only NAME` runs the programs and the tests whose name contains NAME. Needs Node and a C++ compiler (`CXX`, else c++).
 * On a terminal it prints a line for each program that fails and one line in total; elsewhere, and with `--verbose`, one for each program.
 * `DERPLANE_WERROR=1` makes compiler warnings errors, as CI does.
 * Objects lie in build/native-tests/VARIANT and are compiled again when they, a header or the flags are newer.
 */
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { Builder, FLAGS, IO_SOURCES, inParallel, root, run, SHARD_SOURCES, sources } from './build.mjs';

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

const detailed = options.verbose || options.only !== undefined || !process.stdout.isTTY || process.env.CI === 'true';
const flags = [...FLAGS];
if (options.sanitize) {
  flags.push(`-fsanitize=${options.sanitize}`, '-fno-omit-frame-pointer');
  if (options.sanitize.includes('undefined')) flags.push('-fno-sanitize-recover=all');
  // GCC warns that ThreadSanitizer does not know fences; the tests make their races visible by other means (see ring_test.cc).
  if (options.sanitize === 'thread') flags.push('-Wno-tsan');
}
const variant = options.sanitize?.replace(',', '-') ?? 'plain';
const builder = new Builder(flags, variant);

try {
  process.exit(await main());
} catch (error) {
  console.error(`run.mjs: ${error.message}`);
  process.exit(1);
}

async function main() {
  const core = sources('native/core');
  const io = [...IO_SOURCES, ...SHARD_SOURCES, ...sources('native/stun')];
  const all = sources('test/native');
  const tests = all.filter((file) => file.endsWith('_test.cc'));
  const support = all.filter((file) => !file.endsWith('_test.cc'));
  const wanted = tests.filter((file) => programMatches(file) || testNames(file).some(matches));
  if (wanted.length === 0) throw new Error(`no test is named like ${options.only}`);

  const objects = new Map();
  await inParallel([...wanted, ...support, ...core, ...io], async (file) =>
    objects.set(file, await builder.compile(file)),
  );
  const shared = [...support, ...core, ...io].map((file) => objects.get(file));
  const results = await inParallel(wanted, async (file) =>
    runProgram(await builder.link(basename(file, '.cc'), [objects.get(file), ...shared]), programMatches(file)),
  );
  const passed = results.reduce((sum, r) => sum + r.passed, 0);
  const failed = results.reduce((sum, r) => sum + r.failed, 0);
  console.log(`${detailed ? '' : 'native tests: '}${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
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
