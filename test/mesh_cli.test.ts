/** Mesh flags: what the command takes, refuses and does. */
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrivateKey, RelayClient } from 'derplane';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { loadMeshKey, type MeshKeySource } from '../dist/cli/mesh_key.js';
import { derplane, type RelayProcess, startDerplane } from './support/derplane.js';
import { RawClient } from './support/raw_client.js';

const KEY = '0f'.repeat(32);
let folder: string;
let pskFile: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-mesh-'));
  pskFile = join(folder, 'psk');
  await writeFile(pskFile, `\n  ${KEY.toUpperCase()} \r\n`);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const config = (args: string[], env: NodeJS.ProcessEnv = {}) => relayConfig(parseFlags(FLAGS, args), env, true);

describe('the mesh key', () => {
  test('is read from its file, white space trimmed, in either case', () => {
    const { meshKey } = config(['-a=:1', '-mesh-psk-file', pskFile]);
    expect(meshKey).toEqual({ file: pskFile });
    expect(loadMeshKey(meshKey as MeshKeySource)).toBe(KEY);
  });

  test('is looked for in $HOME where no file is given', async () => {
    await mkdir(join(folder, 'home/keys'), { recursive: true });
    const path = join(folder, 'home/keys/derp-mesh.key');
    const env = { HOME: join(folder, 'home') };
    expect(config(['-a=:1'], env).meshKey).toBeUndefined();
    await writeFile(path, KEY);
    expect(config(['-a=:1'], env).meshKey).toEqual({ file: path });
    expect(config(['-a=:1', '-mesh-psk-file='], env).meshKey).toBeUndefined();
    expect(config(['-a=:1', '-mesh-psk-file', pskFile], env).meshKey).toEqual({ file: pskFile });
  });

  test('comes from the environment with -dev, and only then', () => {
    const env = { TAILSCALE_DERPER_MESH_KEY: KEY };
    const { meshKey } = config(['-dev', '-mesh-psk-file', pskFile], env);
    expect(meshKey).toEqual({ variable: 'TAILSCALE_DERPER_MESH_KEY', text: KEY });
    expect(loadMeshKey(meshKey as MeshKeySource)).toBe(KEY);
    expect(config(['-dev', '-mesh-psk-file', pskFile]).meshKey).toBeUndefined();
    expect(config(['-a=:1'], env).meshKey).toBeUndefined();
  });

  test.each([
    ['0'.repeat(64), 'all zeros, which never matches'],
    [KEY.slice(1), '63 characters, needs 64 hexadecimal'],
    [`${KEY}0`, '65 characters, needs 64 hexadecimal'],
    [`${KEY.slice(1)}g`, '64 characters, needs 64 hexadecimal'],
    [' ', '0 characters, needs 64 hexadecimal'],
  ])('%j is an error at start that does not show it', async (text, reason) => {
    const path = join(folder, 'bad');
    await writeFile(path, text);
    const { code, stderr } = await derplane([
      '-a=127.0.0.1:0',
      '-c',
      join(folder, 'key'),
      '-stun=false',
      '-mesh-psk-file',
      path,
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^\\S+ ERROR invalid mesh key: -mesh-psk-file ${path}: ${reason}\\n$`));
    if (text !== ' ') expect(stderr).not.toContain(text.slice(0, 60));
  });

  test('in an empty file is no mesh key, as in derper, and -mesh-with needs one', async () => {
    const path = join(folder, 'empty');
    await writeFile(path, '');
    const args = ['-a=127.0.0.1:0', '-c', join(folder, 'key'), '-stun=false', '-mesh-psk-file', path];
    const relay = await startDerplane(args);
    expect(relay.stderr()).toContain('No mesh key configured');
    relay.kill('SIGTERM');
    await relay.ended;
    const { code, stderr } = await derplane([...args, '-mesh-with=http://127.0.0.2:1']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/ERROR startMesh: --mesh-with requires --mesh-psk-file; the file is empty\n$/);
  });

  test('that cannot be read is an error at start', async () => {
    const args = ['-a=127.0.0.1:0', '-c', join(folder, 'key'), '-stun=false', '-mesh-psk-file', join(folder, 'none')];
    const { code, stderr } = await derplane(args);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^\S+ ERROR StaticFile failed to get key: -mesh-psk-file \S+none: cannot be read: ENOENT: no such file or directory\n$/,
    );
  });
});

describe('-mesh-with', () => {
  test('takes hosts over TLS, loopback ones over plain HTTP too, others by -mesh-insecure-http', () => {
    const psk = ['-a=:1', '-mesh-psk-file', pskFile];
    expect(config([...psk, '-mesh-with=derp1.example.com,derp2.example.com:444/10.0.0.2']).server).toMatchObject({
      mesh: { with: ['derp1.example.com', 'derp2.example.com:444/10.0.0.2'] },
    });
    expect(config([...psk, '-mesh-with=http://127.0.0.2:1,http://a:2/::1']).server).toMatchObject({
      mesh: { with: ['http://127.0.0.2:1', 'http://a:2/::1'] },
    });
    expect(config([...psk, '-mesh-with=http://a:2', '-mesh-insecure-http']).server).toMatchObject({
      mesh: { with: ['http://a:2'], insecureHttp: true },
    });
    expect(config(psk).server.mesh?.with).toEqual([]);
  });

  test.each([
    ['http://192.0.2.1:1', '-mesh-with: mesh host "http://192.0.2.1:1": without TLS'],
    ['derp1.example.com/10.0.0.1:444', 'the port belongs to the name in front of the slash'],
    ['http://127.0.0.2:1, http://127.0.0.3:1', 'entries are not trimmed'],
    ['http://127.0.0.2:1,', 'mesh host "": host: is empty'],
    ['a/b/c', 'too many components in host tuple "a/b/c"'],
  ])('%j is one line at start', async (list, message) => {
    const { code, stderr } = await derplane([
      '-a=:0',
      '-c',
      join(folder, 'key'),
      '-mesh-psk-file',
      pskFile,
      '-mesh-with',
      list,
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^derplane: .*\n$/);
    expect(stderr).toContain(message);
  });

  test('without a mesh key is one line at start', async () => {
    const list = '-mesh-with=http://127.0.0.2:1';
    const { code, stderr } = await derplane(['-a=:0', '-c', join(folder, 'key'), '-mesh-psk-file=', list]);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'derplane: startMesh: --mesh-with requires --mesh-psk-file\n',
    });
    expect(() => config(['-dev', list])).toThrow('TAILSCALE_DERPER_MESH_KEY');
  });

  test('has no effect without DERP, which a warning says', () => {
    const args = ['-a=:1', '-derp=false', '-stun=false', '-mesh-psk-file', pskFile, '-mesh-with=http://127.0.0.2:1'];
    expect(config(args).warnings).toEqual([expect.stringContaining('-mesh-with has no effect')]);
  });
});

describe('three relay processes with one list of hosts', () => {
  const addresses = ['127.0.0.2', '127.0.0.3', '127.0.0.4'];
  const running = new Map<string, RelayProcess>();

  afterEach(async () => {
    for (const relay of running.values()) {
      relay.kill('SIGKILL');
      await relay.ended;
    }
    running.clear();
  });

  /** A port that is free on all addresses, or was so just now. */
  async function commonPort(): Promise<number> {
    const server = createServer().listen(0, '0.0.0.0');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    server.close();
    await once(server, 'close');
    return port;
  }

  async function start(address: string, port: number): Promise<void> {
    const list = addresses.map((other) => `http://${other}:${port}`).join(',');
    const files = ['-c', join(folder, `${address}.key`), '-mesh-psk-file', pskFile];
    const flags = ['-a', `${address}:${port}`, ...files, '-mesh-with', list, '-shards=2', '-stun=false'];
    running.set(address, await startDerplane(flags));
  }

  /** Resolves once a packet crossed from one client to the other. */
  async function untilReached(from: RelayClient, to: RelayClient): Promise<void> {
    let reached = false;
    const reaching = (async () => {
      for (;;) {
        const message = await to.recv();
        if (message.type === 'packet' && message.source.equals(from.publicKey)) return;
      }
    })().finally(() => {
      reached = true;
    });
    while (!reached) {
      await from.send(to.publicKey, Buffer.from('x'));
      await from.ping();
    }
    await reaching;
  }

  test('find each other and themselves, and heal when one was killed', { timeout: 60_000 }, async () => {
    const port = await commonPort();
    for (const address of addresses) await start(address, port);
    for (const [address, relay] of running) {
      await relay.line(/DERP mesh key configured/);
      await relay.line(new RegExp(`mesh\\("${address}:${port}"\\): detected self-connect; ignoring host`));
      expect(relay.stderr()).not.toMatch(new RegExp(`WARN .*mesh\\("${address}:${port}"\\)`));
    }
    const connect = async (address: string) => {
      const client = new RelayClient(PrivateKey.generate(), `http://${address}:${port}/derp`);
      await client.connect();
      return client;
    };
    const [a, b] = [await connect('127.0.0.2'), await connect('127.0.0.4')];
    await untilReached(a, b);
    await untilReached(b, a);

    const survivor = running.get('127.0.0.2')!;
    const killed = running.get('127.0.0.4')!;
    killed.kill('SIGKILL');
    await killed.ended;
    b.close();
    await survivor.line(new RegExp(`mesh\\("127\\.0\\.0\\.4:${port}"\\): Recv: `));
    await start('127.0.0.4', port);
    const back = await connect('127.0.0.4');
    await untilReached(a, back);
    await untilReached(back, a);
    a.close();
    back.close();
  });

  test('a mesh peer needs the key of the file', async () => {
    const port = await commonPort();
    await start('127.0.0.2', port);
    const peer = await (await RawClient.dial(port, undefined, '127.0.0.2')).open({ meshKey: KEY });
    await peer.write(Buffer.from([0x10, 0, 0, 0, 0]));
    await peer.expectFrame(0x09);
    peer.destroy();
  });
});
