/** Compiles and runs the C++ tests; shared by run.mjs and explore.mjs. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
const JOBS = 2;
/** Program and first arguments: CXX may be `ccache g++`. */
const compiler = (process.env.CXX || 'c++').trim().split(/\s+/);

export const FLAGS = ['-std=c++20', '-O1', '-g', '-Wall', '-Wextra', '-Wconversion', '-fno-exceptions', '-pthread'];
if (process.env.DERPLANE_WERROR) FLAGS.push('-Werror');

/** In place of libuv, for SHARD_SOURCES. */
const FAKE_UV = join('test/native/fake_uv', 'uv.h');

/** Of native/io: what compiles and links without libuv. */
export const IO_SOURCES = [
  'address.cc',
  'address_range.cc',
  'proxy_header.cc',
  'connection.cc',
  'inherited.cc',
  'line_writer.cc',
  'handshake_budget.cc',
  'handshake_roster.cc',
  'notify.cc',
  'relay_core.cc',
].map((file) => `native/io/${file}`);

/** Real shards: what links with fake_uv.cc. */
export const SHARD_SOURCES = ['shard.cc', 'shard_io.cc', 'shard_metrics.cc', 'shard_tls.cc', 'tcp_info.cc'].map(
  (file) => `native/io/${file}`,
);

/** The C++ sources of a folder. */
export function sources(path) {
  return readdirSync(join(root, path))
    .filter((file) => file.endsWith('.cc'))
    .sort()
    .map((file) => `${path}/${file}`);
}

/** Objects and programs of one set of flags, in build/native-tests/VARIANT. */
export class Builder {
  #flags;
  #folder;

  constructor(flags, variant) {
    this.#flags = flags;
    this.#folder = join(root, 'build/native-tests', variant);
    mkdirSync(this.#folder, { recursive: true });
  }

  /**
   * Compiles one source, unless an object of the same contents is there; returns the object's path. `change` makes another text of
   * the source.
   */
  async compile(file, change) {
    const text = readFileSync(join(root, file), 'utf8');
    const changed = change === undefined ? text : change(text);
    const object = join(this.#folder, `${basename(file, '.cc')}-${this.#fingerprint(file, changed)}.o`);
    if (existsSync(object)) return object;
    let source = file;
    if (change !== undefined) {
      source = object.replace(/o$/, 'cc');
      writeFileSync(source, changed);
    }
    const folders = ['-iquote', dirname(file), '-I', root, '-I', join(root, dirname(FAKE_UV))];
    await tool([...this.#flags, ...folders, '-c', source, '-o', `${object}.tmp`]);
    renameSync(`${object}.tmp`, object);
    return object;
  }

  async link(name, objects) {
    const hash = createHash('sha256').update(objects.join('\n')).digest('hex').slice(0, 16);
    const program = join(this.#folder, `${name}-${hash}`);
    if (!existsSync(program)) {
      await tool([...this.#flags, ...objects, '-o', `${program}.tmp`]);
      renameSync(`${program}.tmp`, program);
    }
    return program;
  }

  /** Hash of what an object is made of: the source, all headers that it includes in quotes, compiler and flags. */
  #fingerprint(file, changed) {
    const hash = createHash('sha256').update([...compiler, ...this.#flags, changed].join('\n'));
    const seen = new Set();
    const visit = (path, text) => {
      if (seen.has(path)) return;
      seen.add(path);
      hash.update(text);
      if (text.includes('#include <uv.h>')) visit(FAKE_UV, readFileSync(join(root, FAKE_UV), 'utf8'));
      for (const [, included] of text.matchAll(/^#include "(.*)"/gm)) {
        const beside = join(path, '..', included);
        const found = existsSync(beside) ? beside : join(root, included);
        visit(found, readFileSync(found, 'utf8'));
      }
    };
    visit(join(root, file), changed);
    return hash.digest('hex').slice(0, 16);
  }
}

async function tool(args) {
  const { status, output } = await run(compiler[0], [...compiler.slice(1), ...args], {});
  if (status !== 0) throw new Error(`${compiler.join(' ')} failed\n${output}`);
}

export function run(command, args, { timeout }) {
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
export async function inParallel(items, work) {
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
