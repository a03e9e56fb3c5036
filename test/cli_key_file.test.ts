import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadKeyFile } from '../dist/cli/key_file.js';
import { PrivateKey } from '../dist/protocol/key.js';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-key-'));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const modeOf = async (path: string) => (await stat(path)).mode & 0o777;

test('a missing file is made with its folders, readable by the owner only, in the form of derper', async () => {
  const path = join(folder, 'a/b/derper.key');
  const key = await loadKeyFile(path);
  expect(await readFile(path, 'utf8')).toBe(`{\n\t"PrivateKey": "${key.serialize()}"\n}`);
  expect(await modeOf(path)).toBe(0o600);
  expect(await modeOf(join(folder, 'a'))).toBe(0o700);
  expect(await readdir(join(folder, 'a/b'))).toEqual(['derper.key']);
});

test('an existing file is used and not touched', async () => {
  const path = join(folder, 'derper.key');
  const first = await loadKeyFile(path);
  const before = await stat(path);
  expect((await loadKeyFile(path)).serialize()).toBe(first.serialize());
  expect((await stat(path)).mtimeMs).toBe(before.mtimeMs);
});

test.each([
  ['{"PrivateKey":"%s"}'],
  ['  {"privatekey" : "%s", "Other": [1, {"x": null}]}\n'],
  ['{"PrivateKey":"privkey:1", "PRIVATEKEY":"%s"}'],
])('Go would read %s, and so do we', async (json) => {
  const path = join(folder, 'derper.key');
  const key = PrivateKey.generate();
  await writeFile(path, json.replace('%s', key.serialize()));
  expect((await loadKeyFile(path)).serialize()).toBe(key.serialize());
});

const SECRET = 'ab'.repeat(32);

test.each([
  '',
  '{}',
  'null',
  '[]',
  '{"PrivateKey":""}',
  '{"PrivateKey":null}',
  '{"PrivateKey":7}',
  `{"PrivateKey":"${SECRET}"}`,
  `{"PrivateKey":"nodekey:${SECRET}"}`,
  `{"PrivateKey":"privkey:${SECRET}0"}`,
  `{"PrivateKey":"privkey:${SECRET.slice(2)}zz"}`,
  `{"PrivateKey":"privkey:${'0'.repeat(64)}"}`,
  `{"PrivateKey":"privkey:${SECRET}"} x`,
  `{"PrivateKey":"privkey:${SECRET}"`,
  `privkey:${SECRET}`,
])('%s is refused, left alone, and the message does not show it', async (json) => {
  const path = join(folder, 'derper.key');
  await writeFile(path, json);
  const message = await messageOf(loadKeyFile(path));
  expect(message).toMatch(/^derper: config: key file .*derper\.key: .*was not changed/);
  expect(message).not.toContain('abab');
  expect(await readFile(path, 'utf8')).toBe(json);
});

test('a folder, a file that is too big and a link to nowhere are refused', async () => {
  await mkdir(join(folder, 'folder'));
  expect(await messageOf(loadKeyFile(join(folder, 'folder')))).toContain('cannot be read: EISDIR');
  await writeFile(join(folder, 'big'), ' '.repeat(70_000));
  expect(await messageOf(loadKeyFile(join(folder, 'big')))).toContain('70000 bytes are too many (65536 at most)');
  await symlink(join(folder, 'nowhere'), join(folder, 'link'));
  expect(await messageOf(loadKeyFile(join(folder, 'link')))).toContain('cannot be created: EEXIST');
});

test('a file where a folder should be is refused', async () => {
  await writeFile(join(folder, 'file'), '');
  expect(await messageOf(loadKeyFile(join(folder, 'file/derper.key')))).toContain('cannot be');
});

// Root reads and writes everywhere.
test.skipIf(process.getuid?.() === 0)('a file that may not be read is refused', async () => {
  const path = join(folder, 'derper.key');
  await loadKeyFile(path);
  await chmod(path, 0);
  expect(await messageOf(loadKeyFile(path))).toContain('cannot be read: EACCES');
});

test('relays that start at once on one path get one key', async () => {
  const path = join(folder, 'derper.key');
  const module = fileURLToPath(new URL('../dist/cli/key_file.js', import.meta.url));
  const script = `import { loadKeyFile } from ${JSON.stringify(module)}; console.log((await loadKeyFile(${JSON.stringify(path)})).serialize())`;
  const keys = await Promise.all(
    Array.from({ length: 6 }, async () => {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [output] = await Promise.all([text(child.stdout), once(child, 'close')]);
      return output.trim();
    }),
  );
  expect(new Set(keys)).toEqual(new Set([(await loadKeyFile(path)).serialize()]));
  expect(await readdir(folder)).toEqual(['derper.key']);
});

function messageOf(loading: Promise<unknown>): Promise<string> {
  return loading.then(
    () => 'nothing was thrown',
    (error: Error) => error.message,
  );
}
