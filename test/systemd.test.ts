/** The relay as a service of systemd: readiness, reloads, the watchdog, and sockets that it passes. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrivateKey, Server as Relay } from 'derplane';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { ServiceManager, watchdogInterval } from '../dist/cli/service_manager.js';
import { type InheritedSocket, inheritedSockets } from '../dist/cli/sockets.js';
import { MAIN } from './support/derplane.js';
import { expectRelay } from './support/exchange.js';
import { LineWatch } from './support/line_watch.js';
import { stunRequest } from './support/stun.js';

/** Prints each datagram that comes to a Unix socket as a line; Node has no such sockets. */
const RECEIVER = `
import socket, sys
name = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("\\0" + name[1:] if name.startswith("@") else name)
print("bound", flush=True)
while True: print(s.recv(4096).decode().replace("\\n", "|"), flush=True)
`;

let folder: string;
const children: ChildProcess[] = [];
const closing: (() => void)[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'derplane-systemd-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  for (const close of closing.splice(0)) close();
  await rm(folder, { recursive: true });
});

interface Started {
  child: ChildProcess;
  log: LineWatch;
}

/** Starts derplane with an environment of systemd's. */
function start(args: string[], env: NodeJS.ProcessEnv): Started {
  const flags = ['-c', join(folder, 'key'), '-shards=1', '-handshake-threads=1', ...args];
  const child = spawn(process.execPath, [MAIN, ...flags], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  children.push(child);
  const log = new LineWatch('derplane', child.stderr!);
  child.on('close', () => log.end());
  return { child, log };
}

/** Ends a process that a test did not end. */
function endProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it has ended
  }
}

async function receiver(name: string): Promise<LineWatch> {
  const child = spawn('python3', ['-c', RECEIVER, name], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const lines = new LineWatch('receiver', child.stdout!);
  await lines.line(/^bound/);
  return lines;
}

/**
 * What systemd does for socket units: it opens sockets, passes them to a program for each line on its stdin, and keeps them. Node cannot
 * hold a socket that listens without accepting from it.
 */
const LAUNCHER = `
import fcntl, os, socket, sys
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    return s
sockets = [udp() if kind == "u" else socket.create_server(("127.0.0.1", 0)) for kind in sys.argv[1]]
kept = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for s in sockets]
print("ports", *[s.getsockname()[1] for s in sockets], flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        for i, fd in enumerate(kept): os.dup2(fd, 3 + i)
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.execv(sys.argv[2], sys.argv[2:])
    print("started", pid, flush=True)
    status = os.waitpid(pid, 0)[1]
    print("ended", os.WEXITSTATUS(status) if os.WIFEXITED(status) else "by a signal", flush=True)
`;

describe('Type=notify', () => {
  test.each(['path', 'abstract'])(
    'hears of the start, a reload and the end, at a socket that is a %s',
    async (kind) => {
      const name = kind === 'path' ? join(folder, 'notify') : `@${folder}`;
      const heard = await receiver(name);
      const { child, log } = start(['-a=127.0.0.1:0', '-stun=false'], { NOTIFY_SOCKET: name });
      await log.line(/serving on /);
      expect(await heard.line(/READY=1/)).toMatch(/^READY=1\|STATUS=serving on 127\.0\.0\.1:\d+$/);
      const before = process.hrtime.bigint() / 1_000n;
      child.kill('SIGHUP');
      const [, usec] = (await heard.line(/RELOADING=1/)).match(/^RELOADING=1\|MONOTONIC_USEC=(\d+)$/)!;
      expect(BigInt(usec!)).toBeGreaterThanOrEqual(before);
      expect(BigInt(usec!)).toBeLessThanOrEqual(process.hrtime.bigint() / 1_000n);
      await heard.line(/READY=1/, 2);
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await heard.line(/^STOPPING=1$/);
      expect(await ended).toEqual([0, null]);
    },
  );

  test('that nobody hears is a warning', async () => {
    const { log } = start(['-a=127.0.0.1:0', '-stun=false'], { NOTIFY_SOCKET: join(folder, 'nobody') });
    await log.line(/READY=1 to NOTIFY_SOCKET=\S+nobody: no such file or directory/);
  });
});

test('SIGHUP never ends the relay, whatever has become of its files', async () => {
  const [keys, rates] = [join(folder, 'keys'), join(folder, 'rates')];
  writeFileSync(keys, '');
  writeFileSync(rates, '{}');
  const args = ['-a=127.0.0.1:0', '-stun=false', '-allow-keys', keys, '-rate-config', rates];
  const { child, log } = start(args, {});
  await log.line(/serving on /);
  writeFileSync(keys, 'nonsense');
  writeFileSync(rates, 'nonsense');
  child.kill('SIGHUP');
  await log.line(/rate config reload failed: /);
  await log.line(/allowed keys \S+: not reloaded, /);
  writeFileSync(rates, '{}');
  child.kill('SIGHUP');
  await log.line(/rate config reloaded successfully/);
  expect(child.exitCode).toBeNull();
});

describe('the watchdog', () => {
  test('is pinged while the shards answer', async () => {
    const name = join(folder, 'notify');
    const heard = await receiver(name);
    const { child } = start(['-a=127.0.0.1:0', '-stun=false'], { NOTIFY_SOCKET: name, WATCHDOG_USEC: '200000' });
    await heard.line(/READY=1/);
    await heard.line(/^WATCHDOG=1$/, 3);
    expect(child.exitCode).toBeNull();
  });

  test('is not pinged while they do not, and the log says so', async () => {
    const sent: string[] = [];
    const errors: string[] = [];
    const log = (_: object, message: string) => void errors.push(message);
    const logger = { debug: log, info: log, warn: log, error: log };
    const manager = new ServiceManager('/socket', logger, (_socket: string, text: string) => void sent.push(text));
    let answer = () => {};
    manager.watch(
      20,
      () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    );
    await expect
      .poll(() => errors[0], { timeout: 30_000 })
      .toMatch(/^watchdog: a thread that moves packets does not answer/);
    expect(sent).toEqual([]);
    answer();
    await expect.poll(() => sent, { timeout: 30_000 }).toEqual(['WATCHDOG=1']);
    manager.close();
  });

  test.each([
    [{}, undefined],
    [{ WATCHDOG_USEC: '0' }, undefined],
    [{ WATCHDOG_USEC: 'x' }, undefined],
    [{ WATCHDOG_USEC: '30000000' }, 30_000],
    [{ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '7' }, 30_000],
    [{ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '8' }, undefined],
  ])('of the environment %j has an interval of %s ms', (env, interval) => {
    expect(watchdogInterval(env, 7)).toBe(interval);
  });
});

describe('sockets that systemd passes', () => {
  test('are served, several of one name; clients wait for the next start instead of being refused', async () => {
    const flags = ['-c', join(folder, 'key'), '-shards=1', '-handshake-threads=1', '-stun=false'];
    const command = [process.execPath, MAIN, ...flags, '-a', 'fd:relay', '-metrics-addr', 'fd:metrics'];
    const env = { ...process.env, LISTEN_FDS: '3', LISTEN_FDNAMES: 'relay:relay:metrics' };
    const launcher = spawn('python3', ['-c', LAUNCHER, 'ttt', ...command], { env, stdio: 'pipe' });
    children.push(launcher);
    const [said, log] = [new LineWatch('launcher', launcher.stdout), new LineWatch('derplane', launcher.stderr)];
    const [, first, second, metrics] = (await said.line(/^ports /)).split(' ');
    for (let run = 0; run < 2; run++) {
      const early = fetch(`http://127.0.0.1:${first}/derp/probe`);
      launcher.stdin.write('start\n');
      await said.line(/^started /, run + 1);
      const pid = Number(said.lines.at(-1)!.split(' ')[1]);
      closing.push(() => endProcess(pid));
      expect((await early).status).toBe(200);
      await log.line(new RegExp(`serving on 127\\.0\\.0\\.1:${second} too$`), run + 1);
      expect(log.all()).toMatch(new RegExp(`serving on 127\\.0\\.0\\.1:${first} `));
      await expectRelay(`http://127.0.0.1:${first}/derp`);
      await expectRelay(`http://127.0.0.1:${second}/derp`);
      expect((await fetch(`http://127.0.0.1:${metrics}/metrics`)).status).toBe(200);
      process.kill(pid, 'SIGTERM');
      await said.line(/^ended 0$/, run + 1);
    }
  });

  test('serve STUN too', async () => {
    const command = [
      process.execPath,
      MAIN,
      '-c',
      join(folder, 'key'),
      '-shards=1',
      '-a=127.0.0.1:0',
      '-stun-addr=fd:',
    ];
    const env = { ...process.env, LISTEN_FDS: '1' };
    const launcher = spawn('python3', ['-c', LAUNCHER, 'u', ...command], { env, stdio: 'pipe' });
    children.push(launcher);
    const [said, log] = [new LineWatch('launcher', launcher.stdout), new LineWatch('derplane', launcher.stderr)];
    const [, port] = (await said.line(/^ports /)).split(' ');
    launcher.stdin.write('start\n');
    const pid = Number((await said.line(/^started /)).split(' ')[1]);
    closing.push(() => endProcess(pid));
    await log.line(new RegExp(`STUN server listening on 127\\.0\\.0\\.1:${port}$`));
    const socket = createSocket('udp4');
    closing.push(() => socket.close());
    const answered = once(socket, 'message');
    socket.send(stunRequest(), Number(port), '127.0.0.1');
    expect((await answered)[0].readUInt16BE(0)).toBe(0x0101);
  });
});

describe('a flag that names passed sockets', () => {
  const SOCKETS: InheritedSocket[] = [
    { fd: 3, name: 'web', kind: 'tcp', address: '[::]:443' },
    { fd: 4, name: 'web', kind: 'tcp', address: '192.0.2.1:443' },
    { fd: 5, name: 'metrics', kind: 'tcp', address: '127.0.0.1:9090' },
    { fd: 6, name: '', kind: 'udp', address: '[::]:3478' },
  ];
  const config = (sockets: InheritedSocket[], ...args: string[]) =>
    relayConfig(parseFlags(FLAGS, args), { HOME: '/h' }, true, sockets);
  const fdsOf = (address: { sockets?: readonly { fd: number }[] } | undefined) => address?.sockets?.map(({ fd }) => fd);

  test('takes those of its name and kind, or all that no other flag names', () => {
    const { address, metricsAddress, stun, tls } = config(
      SOCKETS,
      '-a=fd:',
      '-metrics-addr=fd:metrics',
      '-stun-addr=fd:',
    );
    expect(address).toMatchObject({ host: '::', port: 443 });
    expect([fdsOf(address), fdsOf(metricsAddress), fdsOf(stun?.address)]).toEqual([[3, 4], [5], [6]]);
    expect(tls).toBeDefined(); // port 443
  });

  test.each([
    [[], '-a=fd:', '-a "fd:": no sockets were passed to this process'],
    [SOCKETS, '-a=fd:x', '-a "fd:x": no listening TCP socket of that name was passed, but web (tcp [::]:443)'],
    [SOCKETS, '-stun-addr=fd:web', '-stun-addr "fd:web": no UDP socket of that name was passed'],
    [SOCKETS, '-metrics-addr=fd:web', '-metrics-addr "fd:web": 2 sockets were passed for it, and it takes one'],
  ])('of %j refuses %s', (sockets, flag, message) => {
    expect(() => config(sockets, flag)).toThrow(message);
  });

  test('reads the environment of this process only', () => {
    const describeAll = () => ({ kind: 'tcp' as const, address: '127.0.0.1:1' });
    const env = { LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'a' };
    expect(inheritedSockets(env, describeAll, 8)).toEqual([]);
    expect(inheritedSockets(env, describeAll, 7).map(({ fd, name }) => [fd, name])).toEqual([
      [3, 'a'],
      [4, ''],
    ]);
    expect(() => inheritedSockets({ ...env, LISTEN_FDS: 'x' }, describeAll, 7)).toThrow('LISTEN_FDS="x"');
  });
});

test('Server.listen takes a descriptor, refuses what is no listening socket, and ping answers', async () => {
  await using relay = new Relay(PrivateKey.generate());
  await relay.ping();
  await expect(relay.listen({ fd: 0, port: 1 })).rejects.toMatchObject({ code: 'ERR_DERP_BAD_OPTION' });
  await expect(relay.listen({ fd: 1_000_000 })).rejects.toMatchObject({ code: 'EBADF', syscall: 'listen' });
  await relay.close();
  await expect(relay.ping()).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
});

const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0;

test.skipIf(!hasSystemd)('the units that come along are right, and expose little', () => {
  const units = ['derplane.service', 'derplane.socket', 'derplane-http.socket'];
  const paths = units.map((name) => {
    const text = readFileSync(new URL(`../deploy/systemd/${name}`, import.meta.url), 'utf8');
    const path = join(folder, name);
    // Where the program is installed on this machine.
    writeFileSync(path, text.replace('/usr/local/bin/derplane', process.execPath));
    return path;
  });
  const verified = spawnSync('systemd-analyze', ['verify', '--man=no', ...paths], { encoding: 'utf8' });
  expect({ status: verified.status, stderr: verified.stderr }).toEqual({ status: 0, stderr: '' });
  const security = spawnSync('systemd-analyze', ['security', '--offline=true', '--threshold=20', paths[0]!]);
  expect(security.status).toBe(0);
});
