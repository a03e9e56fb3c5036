/**
 * Formats the C++ sources: `node native/format.mjs` writes, `node native/format.mjs --check` only says what differs.
 * Where clang-format is missing there is nothing to do, except in CI (`CI=true`), where that is a failure.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const FOLDERS = ['native', 'test/native', 'bench/native'];
/** Versions format differently; this is the one that the sources are written with. */
const VERSION = 19;
const PROGRAMS = [`clang-format-${VERSION}`, 'clang-format'];

const check = process.argv.includes('--check');
const program = PROGRAMS.find((name) =>
  spawnSync(name, ['--version'], { encoding: 'utf8' }).stdout?.includes(`version ${VERSION}.`),
);
if (program === undefined) {
  console.error(
    `format: no clang-format ${VERSION} here (Debian: clang-format-19), so the C++ sources were not looked at`,
  );
  process.exit(process.env.CI === 'true' ? 1 : 0);
}

const files = FOLDERS.filter((folder) => existsSync(join(root, folder)))
  .flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((file) => join(folder, file)),
  )
  .filter((file) => /\.(?:h|cc)$/.test(file));
if (files.length === 0) process.exit(0);

const action = check ? ['--dry-run', '--Werror'] : ['-i'];
const { status } = spawnSync(program, [...action, ...files], { cwd: root, stdio: 'inherit' });
process.exit(status ?? 1);
