/** docs/api.md: its examples run and print what it shows, and it leaves nothing public out. */
import { execFile } from 'node:child_process';
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as derplane from 'derplane';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as defaults from '../dist/server/defaults.js';
import { OPTION_RANGES } from '../dist/server/option_ranges.js';
import { resolveOptions } from '../dist/server/resolve_options.js';
import { startDerplane } from './support/derplane.js';

const root = new URL('../', import.meta.url);
const read = (path: string) => readFile(new URL(path, root), 'utf8');
const [api, clientApi] = await Promise.all([read('docs/api.md'), read('docs/api-client.md')]);

/** Each example with what it prints. */
const examples = [...api.matchAll(/^```js\n([\s\S]*?)^```\n\n```text\n([\s\S]*?)^```$/gm)].map(([, code, output]) => ({
  code: code!,
  output: output!,
}));
/** First cells of the rows of all tables, without backticks. */
const firstCells = [...api.matchAll(/^\| `([^|]+)` \|/gm)].flatMap(([, cell]) => cell!.split('`, `'));

describe('examples', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(fileURLToPath(new URL('test/.docs-', root))); // within the package: it finds itself by name
  });
  afterAll(() => rm(folder, { recursive: true }));

  async function run(code: string): Promise<string> {
    const file = join(folder, 'example.mjs');
    await writeFile(file, code);
    return (await promisify(execFile)(process.execPath, [file], { timeout: 30_000 })).stdout;
  }

  test('each has its output', () => {
    expect(examples.length).toBeGreaterThanOrEqual(4);
    expect(examples).toHaveLength(api.match(/^```js$/gm)!.length);
  });

  test.each(examples)('$output', async ({ code, output }) => {
    expect(await run(code)).toBe(output);
  });

  test('that of api-client.md', async () => {
    const [, code] = clientApi.match(/^```ts\n([\s\S]*?)^```$/m)!;
    const relay = await startDerplane(['-a=127.0.0.1:0', '-c', join(folder, 'derper.key'), '-shards=1', '-stun=false']);
    try {
      expect(code).toContain('127.0.0.1:3340');
      const output = await run(code!.replaceAll('127.0.0.1:3340', relay.address));
      expect(output).toMatch(/^\[[\w+/]{5}\]: hello\n$/);
    } finally {
      relay.kill('SIGTERM');
      await relay.ended;
    }
  });
});

/** Default of each option that has one number for every machine, by its path. */
function defaultValues(): Record<string, number> {
  const { mesh, admission, handshake, timeouts, queues } = resolveOptions({});
  const { threads: _byCores, ...bounds } = handshake;
  const groups = { mesh: { retryInterval: mesh.retryInterval }, handshake: bounds, timeouts, queues, admission };
  const paths = Object.entries(groups).flatMap(([group, options]) =>
    Object.entries(options).map(([name, value]) => [`${group}.${name}`, value]),
  );
  const { TCP_KEEPALIVE_TIME: tcpKeepaliveTime, TCP_USER_TIMEOUT: tcpUserTimeout } = defaults;
  return { ...Object.fromEntries(paths), tcpKeepaliveTime, tcpUserTimeout };
}

/** Names in a TypeScript source, read as text. */
async function members(path: string, begin: string, member: RegExp): Promise<string[]> {
  const source = await read(path);
  const body = source.slice(source.indexOf(begin));
  return [...body.slice(0, body.search(/^}/m)).matchAll(member)].map(([, name]) => name!);
}

describe('it tells of', () => {
  test('every error code, once, and of no other', async () => {
    const codes = [...(await read('src/errors.ts')).matchAll(/\| '(ERR_DERP_\w+|ABORT_ERR)'/g)].map(([, code]) => code);
    expect(codes.length).toBeGreaterThan(10);
    expect(firstCells.filter((cell) => /^(ERR_DERP_|ABORT_ERR)/.test(cell)).toSorted()).toEqual(codes.toSorted());
  });

  test('every method and property of Server', () => {
    const names = Object.getOwnPropertyNames(derplane.Server.prototype).filter((name) => name !== 'constructor');
    const headings = api.match(/^##.*$/gm)!.join('\n');
    for (const name of [...names, 'closed']) expect(headings).toMatch(new RegExp(`[\`\\s]${name}[\`(]`));
  });

  test.each([
    ['ServerOptions', ''],
    ['ServerMeshOptions', 'mesh.'],
    ['ServerAdmissionOptions', 'admission.', 'src/admission/options.ts'],
    ['ServerHandshakeOptions', 'handshake.'],
    ['ServerTimeoutOptions', 'timeouts.'],
    ['ServerQueueOptions', 'queues.'],
    ['ListenOptions', ''],
  ])('every option of %s', async (name, prefix, file = 'src/server/options.ts') => {
    const options = await members(file, `export interface ${name} {`, /^ {2}(\w+)\??:/gm);
    const groups = new Set(['mesh', 'admission', 'handshake', 'timeouts', 'queues']);
    const leaves = options.filter((option) => prefix !== '' || !groups.has(option));
    expect(leaves.length).toBeGreaterThan(2);
    expect(firstCells).toEqual(expect.arrayContaining(leaves.map((option) => `${prefix}${option}`)));
  });

  test('the range and the default of every option that is a number, as they are', () => {
    const rows = [...api.matchAll(/^\| `([\w.]+)` \|[^|]*\| ([\d,]+) to ([\d,]+) \|([^|]*)\|/gm)];
    const number = (text: string) => Number(text.trim().replaceAll(',', ''));
    const ranges = Object.fromEntries(
      rows.map(([, option, min, max]) => [option, { min: number(min!), max: number(max!) }]),
    );
    const { drainTime: _ofClose, ...documented } = OPTION_RANGES;
    expect(ranges).toEqual(documented);
    const values = new Map(Object.entries(defaultValues()));
    for (const [, option, , , value] of rows) {
      const known = values.get(option!);
      if (known !== undefined) expect(`${option} ${number(value!)}`).toBe(`${option} ${known}`);
    }
  });

  test('every other export, or the page about clients does', async () => {
    const index = await read('src/index.ts');
    const names = Object.keys(derplane).filter((name) => new RegExp(`\\b${name}\\b`).test(index));
    expect(names.length).toBeGreaterThan(8);
    for (const name of names) expect(`${api}${clientApi}`.includes(name), name).toBe(true);
  });
});

test.each(['api.md', 'api-client.md', 'cli.md'])('the links of %s lead somewhere', async (name) => {
  const from = new URL(`docs/${name}`, root);
  const text = await readFile(from, 'utf8');
  for (const [, link] of text.matchAll(/\]\((?!https?:)([^)#]+)/g)) {
    await expect(access(new URL(link!, from)), link).resolves.toBeUndefined();
  }
});
