/** The public types: a strict consumer compiles with them, they are complete, and they change only knowingly. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { PrivateKey, Server } from 'derplane';
import { describe, expect, test } from 'vitest';
import { DROP_FIGURES, LABELLED_FIGURES, NUMBER_FIGURES } from '../dist/server/stats_types.js';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const index = await readFile(join(dist, 'index.d.ts'), 'utf8');

/** Each public name with the file that declares it. */
const exported = [...index.matchAll(/export (?:type )?\{([^}]*)\} from '([^']+)'/g)].flatMap(([, names, from]) =>
  names!
    .split(',')
    .map((name) => name.trim().replace(/^type /, ''))
    .filter((name) => name !== '')
    .map((name) => ({ name, file: join(dist, from!.replace(/\.js$/, '.d.ts')) })),
);

/** A file's declarations by name, without comments. */
async function declarations(file: string): Promise<Map<string, string>> {
  const text = (await readFile(file, 'utf8')).replace(/\/\*[\s\S]*?\*\//g, '').replace(/\n\s*\n/g, '\n');
  const parts = text.split(/^(?=(?:export |declare |type |interface |import ))/m);
  const named = parts.map((part) => [
    part.match(/(?:class|interface|type|function|const|let)\s+(\w+)/)?.[1] ?? '',
    part,
  ]);
  return new Map(named.filter(([, part]) => !part!.startsWith('import ')) as [string, string][]);
}

const surface = await Promise.all(
  exported.map(async ({ name, file }) => ({ name, file, text: (await declarations(file)).get(name)?.trim() ?? '' })),
);

test('is as it was; `npx vitest run test/api_surface.test.ts -u` writes it anew', async () => {
  const text = surface.map(({ text }) => text).join('\n');
  expect(index).not.toMatch(/export \*/);
  await expect(text).toMatchFileSnapshot('__snapshots__/api_surface.txt');
});

test('every type that a public declaration names is public', async () => {
  const names = new Set(exported.map(({ name }) => name));
  for (const { name, file, text } of surface) {
    expect(text, name).not.toBe('');
    const source = await readFile(file, 'utf8');
    const imports = [...source.matchAll(/import (?:type )?\{([^}]*)\} from '(\.[^']*)'/g)].flatMap(([, list]) =>
      list!.split(',').map((entry) => entry.trim().replace(/^type /, '')),
    );
    for (const type of [
      ...imports,
      ...(await declarations(join(dirname(file), file.slice(dirname(file).length + 1)))).keys(),
    ]) {
      if (!/^[A-Z]/.test(type) || HELPERS.has(type) || !new RegExp(`\\b${type}\\b`).test(text)) continue;
      expect(names, `${name} names ${type}, which is not exported`).toContain(type);
    }
  }
});

/** What a declaration is made of, and nobody needs to name: bases, and parts of a type that is exported. */
const HELPERS = new Set([
  'ServerEmitter',
  'ServerInfo',
  'ConnectionId',
  'FigureSource',
  'TrafficSource',
  'ClientsSource',
  'Numbers',
  'Labelled',
  'Drops',
]);

const CONSUMER = `
import { Client, type ConnectionTraffic, DerpError, type MeshPeer, PrivateKey, RelayClient, Server, type ServerOptions, type ServerStats, TlsContext } from 'derplane';
const options: ServerOptions = { shards: 1, queues: { depth: 8 }, mesh: { key: 'ab'.repeat(32), ca: [Buffer.from('')] } };
await using relay = new Server(PrivateKey.generate(), options);
relay.on('clientGone', ({ key, reason }) => console.log(key.hex, reason.length));
const { port } = await relay.listen({ port: 0, tls: new TlsContext() });
const peer: MeshPeer = relay.addMeshPeer('derp.example.com');
await peer.ready;
const client = new RelayClient(PrivateKey.generate(), 'http://127.0.0.1:' + port);
await client.connect({ signal: AbortSignal.timeout(1000) });
const sent: boolean = await client.send(client.publicKey, Buffer.from('x'));
for await (const { data, source } of client.packets()) console.log(data.length, source.hex, sent);
const traffic: ConnectionTraffic[] = await relay.traffic();
const stats: ServerStats = relay.expVar();
const figure: number = stats.gauge_clients_local + stats.closed['eof']! + stats.packets_dropped['gone']!.disco;
console.log(traffic.length, figure, Client, DerpError);
// @ts-expect-error: texts are no packets
await client.send(client.publicKey, 'text');
// @ts-expect-error: no such option
new Server(PrivateKey.generate(), { queueDepth: 1 });
`;

describe('a strict consumer compiles', () => {
  test.each([
    ['node16', 'node16'],
    ['nodenext', 'nodenext'],
    ['esnext', 'bundler'],
  ])('with the modules of %s and the resolution of %s', async (module, moduleResolution) => {
    const folder = await mkdtemp(fileURLToPath(new URL('.consumer-', import.meta.url))); // within the package: it finds itself by name
    try {
      await writeFile(join(folder, 'consumer.mts'), CONSUMER);
      const compilerOptions = {
        module,
        moduleResolution,
        target: 'es2022',
        lib: ['es2023', 'esnext.disposable'],
        types: ['node'],
      };
      const strict = { strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noEmit: true };
      const config = {
        compilerOptions: { ...compilerOptions, ...strict, skipLibCheck: false },
        files: ['consumer.mts'],
      };
      await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
      const tsc = fileURLToPath(new URL('../node_modules/.bin/tsc', import.meta.url));
      const output = await promisify(execFile)(tsc, ['-p', folder]).then(
        () => '',
        ({ stdout }: { stdout: string }) => stdout,
      );
      expect(output).toBe('');
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

test('the figures have the names and forms that their type says', async () => {
  const relay = new Server(PrivateKey.generate(), { shards: 1, handshake: { threads: 1 } });
  try {
    const figures = relay.expVar();
    const typed: readonly string[] = [...NUMBER_FIGURES, ...LABELLED_FIGURES, ...DROP_FIGURES];
    expect(Object.keys(figures).toSorted()).toEqual(typed.toSorted());
    for (const name of NUMBER_FIGURES) expect(figures[name], name).toEqual(expect.any(Number));
    for (const name of LABELLED_FIGURES) {
      for (const value of Object.values(figures[name])) expect(value, name).toEqual(expect.any(Number));
    }
    for (const name of DROP_FIGURES) {
      const kinds = { disco: expect.any(Number), other: expect.any(Number) };
      for (const value of Object.values(figures[name])) expect(value, name).toEqual(kinds);
    }
  } finally {
    await relay.close();
  }
});
