/** The file of admitted keys: what it may hold, and how a relay follows it. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { rename, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AdmissionRequest, PrivateKey, Server } from 'derplane';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { AdmissionChain } from '../dist/admission/admission.js';
import { parseKeyList } from '../dist/admission/key_list.js';
import { ask, askRelay } from './support/admission.js';
import { startDerplane } from './support/derplane.js';
import { LogWatch } from './support/log_watch.js';
import { RawClient } from './support/raw_client.js';
import { withRelay } from './support/relay.js';

const folder = mkdtempSync(join(tmpdir(), 'derplane-keys-'));
const path = join(folder, 'keys');
const alice = PrivateKey.generate();
const bob = PrivateKey.generate();

afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  rmSync(path, { force: true });
  writeFileSync(path, `${alice.publicKey}\n`);
});

/** As careful writers do: the file is never half there. */
async function replace(text: string): Promise<void> {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

async function replaceByPipe(): Promise<void> {
  execFileSync('mkfifo', [`${path}.new`]);
  await rename(`${path}.new`, path);
}

async function replaceByLink(target: string): Promise<void> {
  await symlink(target, `${path}.new`);
  await rename(`${path}.new`, path);
}

describe('a line', () => {
  const { hex } = alice.publicKey;

  test.each([
    [`nodekey:${hex}`, { allow: true }],
    [`  nodekey:${hex.toUpperCase()}\t# Alice`, { allow: true }],
    [`nodekey:${hex} label=team-a`, { allow: true, label: 'team-a' }],
    [`nodekey:${hex} rate=1000 label=x\r`, { allow: true, label: 'x', receiveRate: 1000 }],
  ])('%j admits', (line, decision) => {
    expect([...parseKeyList(`# a list\n\n${line}\n`)]).toEqual([[hex, decision]]);
  });

  test.each([
    [`nodekey:${hex.slice(1)}`, 'must be "nodekey:" and 64 hexadecimal digits'],
    [hex, 'must be "nodekey:" and 64 hexadecimal digits'],
    [`privkey:${hex}`, '"privkey:'],
    [`nodekey:${'0'.repeat(64)}`, 'all-zero'],
    [`nodekey:${hex} label=`, 'label: must be'],
    [`nodekey:${hex} label=a"b`, 'label: must be'],
    [`nodekey:${hex} label=${'x'.repeat(65)}`, 'label: must be'],
    [`nodekey:${hex} rate=0`, 'rate="0": must be bytes per second'],
    [`nodekey:${hex} rate=1e3`, 'rate="1e3"'],
    [`nodekey:${hex} rate=9007199254740992`, 'rate='],
    [`nodekey:${hex} rate=1 rate=2`, 'given twice'],
    [`nodekey:${hex} team`, '"team": unknown'],
  ])('%j is malformed', (line, text) => {
    expect(() => parseKeyList(`\n${line}`)).toThrow(/^line 2: /);
    expect(() => parseKeyList(`\n${line}`)).toThrow(text);
    // Nothing of a secret that was put there by mistake but its first characters.
    expect(() => parseKeyList(`\n${line}`)).not.toThrow(hex.slice(8, 40));
  });

  test('that repeats a key is malformed', () => {
    expect(() => parseKeyList(`nodekey:${hex}\n#\nnodekey:${hex.toUpperCase()}`)).toThrow(
      'line 3: the key is on line 1',
    );
  });
});

test('who is in the file is let in, others are not', async () => {
  const logger = new LogWatch();
  await withRelay({ shards: 2, logger, admission: { keyFile: path } }, async (relay) => {
    expect(await askRelay(relay, {}, alice)).toBe('admitted');
    expect(await askRelay(relay, {}, bob)).toBe('refused');
    await logger.line(new RegExp(`client ${bob.publicKey} rejected: ${bob.publicKey} is not among the allowed keys$`));
    expect(relay.counter('admission_refused', 'key_file')).toBe(1);
    expect(relay.counter('gauge_admission_keys')).toBe(1);
    expect(relay.counter('gauge_open_to_anyone')).toBe(0);
  });
});

test('the relay follows its file: newcomers get in, who left is disconnected, others are not disturbed', async () => {
  const logger = new LogWatch();
  writeFileSync(path, `${alice.publicKey}\n${bob.publicKey}\n`);
  await withRelay({ shards: 2, logger, admission: { keyFile: path } }, async (relay) => {
    const [a, b] = [await relay.dial(alice), await relay.dial(bob)];
    expect([await ask(a), await ask(b)]).toEqual(['admitted', 'admitted']);
    const carol = PrivateKey.generate();
    await replace(`${alice.publicKey} label=x\n${carol.publicKey}\n`);
    await b.expectClose();
    await logger.line(/allowed keys: 2 in .*, 1 added, 1 removed$/);
    expect(await askRelay(relay, {}, carol)).toBe('admitted');
    expect(await askRelay(relay, {}, bob)).toBe('refused');
    await a.settle();
  });
});

test.each([
  ['malformed', () => replace('nonsense\n'), 'line 1: "nonsense"'],
  ['away', () => rename(path, `${path}.away`), 'ENOENT'],
  ['a pipe that nobody writes to', () => replaceByPipe(), 'it must be a regular file'],
  ['a device that never ends', () => replaceByLink('/dev/zero'), 'it must be a regular file'],
  ['too big', () => replace('#'.repeat((8 << 20) + 1)), 'too many'],
])('while the file is %s the old list stays, and the log says why', async (_, spoil, why) => {
  const logger = new LogWatch();
  await withRelay({ shards: 1, logger, admission: { keyFile: path } }, async (relay) => {
    const a = await relay.dial(alice);
    expect(await ask(a)).toBe('admitted');
    await spoil();
    expect(await logger.line(/ERROR allowed keys .*: not reloaded, the list in force stays: /)).toContain(why);
    await a.settle();
    expect(await askRelay(relay, {}, alice)).toBe('admitted');
    expect(await askRelay(relay, {}, bob)).toBe('refused');
    await replace(`${bob.publicKey}\n`);
    await a.expectClose();
    expect(await askRelay(relay, {}, bob)).toBe('admitted');
  });
});

test('a client whose key leaves while other sources decide is refused', async () => {
  let decide: (allow: boolean) => void = () => {};
  const admit = (_: AdmissionRequest) =>
    new Promise<boolean>((resolve) => {
      decide = resolve;
    });
  await withRelay({ shards: 1, admission: { keyFile: path, admit } }, async (relay) => {
    const asked = askRelay(relay, {}, alice);
    await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 1);
    await replace(`${bob.publicKey}\n`);
    relay.server.reloadAdmission();
    decide(true);
    expect(await asked).toBe('refused');
  });
});

test('no client stays whose key left while it was let in', async () => {
  const keys = Array.from({ length: 40 }, () => PrivateKey.generate());
  await replace(keys.map(({ publicKey }) => `${publicKey}\n`).join(''));
  await withRelay({ shards: 2, admission: { keyFile: path } }, async (relay) => {
    const clients = await Promise.all(keys.map((key) => relay.dial(key)));
    const asked = clients.map((client) => ask(client).catch(() => 'ended'));
    await relay.untilCounter(['gauge_current_connections'], (value) => value > 0);
    await replace('');
    relay.server.reloadAdmission();
    await Promise.all(asked);
    await relay.untilCounter(['gauge_current_connections'], (value) => value === 0);
    for (const client of clients) await client.expectClose();
  });
});

test('the first label and the lowest limit of all sources count', async () => {
  const source = (label: string | undefined, receiveRate: number | undefined) => ({
    name: 'hook' as const,
    admit: () => ({ allow: true, ...(label && { label }), ...(receiveRate && { receiveRate }) }),
  });
  const chain = new AdmissionChain([
    source(undefined, 300),
    source('b', undefined),
    source('c', 100),
    source('d', 200),
  ]);
  const request = { key: alice.publicKey, address: '', appName: '', version: 2, isProber: false };
  expect(await chain.admit(request, new AbortController().signal)).toEqual({
    allow: true,
    label: 'b',
    receiveRate: 100,
  });
});

describe('the command', () => {
  const flags = () => ['-a=127.0.0.1:0', '-c', join(folder, 'derper.key'), '-stun=false', '-shards=1'];

  test('follows -allow-keys, on SIGHUP at once, and says at start who may use it', async () => {
    const relay = await startDerplane([...flags(), '-allow-keys', path]);
    try {
      await relay.line(/who may use this relay: only keys of /);
      const dial = async (key: PrivateKey) => ask(await RawClient.dial(relay.port, key));
      expect([await dial(alice), await dial(bob)]).toEqual(['admitted', 'refused']);
      await replace(`${bob.publicKey}\n`);
      relay.kill('SIGHUP');
      await relay.line(/allowed keys: 1 in .*, 1 added, 1 removed/);
      expect([await dial(alice), await dial(bob)]).toEqual(['refused', 'admitted']);
    } finally {
      relay.kill('SIGKILL');
      await relay.ended;
    }
  });

  test('says that anyone may use it', async () => {
    const relay = await startDerplane(flags());
    await relay.line(/anyone who can reach this relay may use it/);
    relay.kill('SIGKILL');
    await relay.ended;
  });

  test('does not start with a file that it cannot use', async () => {
    await replace('nonsense');
    const started = startDerplane([...flags(), '-allow-keys', path]);
    await expect(started).rejects.toThrow(/allowed keys .*keys: line 1: "nonsense": must be/);
  });
});

test('the constructor throws for a file that it cannot use', async () => {
  await replace('nodekey:x');
  expect(() => new Server(PrivateKey.generate(), { shards: 1, admission: { keyFile: path } })).toThrow(
    expect.objectContaining({ code: 'ERR_DERP_BAD_OPTION', message: expect.stringContaining('line 1') }),
  );
});
