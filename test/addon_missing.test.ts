/** A package whose native addon is missing or does not load says so in a DerpError, with what to do. */
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));
const IMPORT = `import('./dist/index.js').catch(({ name, code, message, cause }) =>
  console.log(JSON.stringify({ name, code, message, cause: cause.message })))`;

test.each([
  [
    'missing',
    undefined,
    /^derplane: there is no native addon for linux-\w+, Node v[\d.]+; build it: cd ".*" && npm install/,
  ],
  ['broken', 'no addon', /^derplane: the native addon does not load \(.*\): .*; was it built for another Node/],
])('an addon that is %s', async (_what, content, message) => {
  const folder = await mkdtemp(join(tmpdir(), 'derplane-addon-'));
  try {
    await cp(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
    await cp(join(root, 'package.json'), join(folder, 'package.json'));
    await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
    if (content !== undefined) {
      await mkdir(join(folder, 'build/Release'), { recursive: true });
      await writeFile(join(folder, 'build/Release/derplane.node'), content);
    }
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', IMPORT], { cwd: folder });
    const error = JSON.parse(stdout) as { message: string; cause: string };
    expect(error).toMatchObject({ name: 'DerpError', code: 'ERR_DERP_ADDON' });
    expect(error.message).toMatch(message);
    expect(error.cause).not.toBe('');
  } finally {
    await rm(folder, { recursive: true });
  }
});
