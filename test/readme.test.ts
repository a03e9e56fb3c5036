import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { expectRelay } from './support/exchange.js';

const root = new URL('../', import.meta.url);
const readme = await readFile(new URL('README.md', root), 'utf8');
const scripts = JSON.parse(await readFile(new URL('package.json', root), 'utf8')).scripts as Record<string, string>;

/** Contents of the fenced blocks of a language. */
const blocks = (language: string) =>
  [...readme.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
    .filter((block) => block[1] === language)
    .map((block) => block[2]!);

test('the example of a relay in an HTTP server runs as it stands, beside the site it is in', async () => {
  const [example] = blocks('js');
  const folder = new URL('.cache/readme/', root); // within the package, so that it finds itself by name
  await mkdir(folder, { recursive: true });
  const file = fileURLToPath(new URL('example.mjs', folder));
  await writeFile(file, example!);
  const child = spawn(process.execPath, [file], {
    env: { ...process.env, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const url = line.match(/^DERP at (http:\S+)$/)![1]!;
    expect(await (await fetch(new URL('/', url))).text()).toBe('my own site\n');
    await expectRelay(url);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'close');
    await rm(folder, { recursive: true });
  }
});

test('every npm command of the README exists', () => {
  const commands = [...readme.matchAll(/npm (?:run )?(\w[\w:]*)/g)]
    .map((match) => match[1]!)
    .filter((name) => name !== 'ci');
  expect(commands).toEqual(expect.arrayContaining(['start', 'test', 'demo']));
  for (const command of commands) expect(scripts).toHaveProperty([command]);
});

test.each(['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'docs/operations.md'])(
  'the links of %s lead somewhere',
  async (name) => {
    const from = new URL(name, root);
    const links = [...(await readFile(from, 'utf8')).matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1]!);
    for (const link of links) await expect(access(new URL(link, from)), link).resolves.toBeUndefined();
  },
);
