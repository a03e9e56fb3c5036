/**
 * A program that starts relays and ends in some way. Its parent judges by exit code, signal and what it prints.
 *
 *     node [--expose-gc] lifecycle_child.mjs SCENARIO SHARDS [COUNT]
 */
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { PrivateKey, RelayClient, Server } from 'derplane';

/** Exit code of every scenario that calls process.exit: none that Node or a signal would make. */
const EXIT_CODE = 7;

/**
 * The least that rings may have. V8 takes shared memory from calloc, and what glibc keeps of 32 MiB blocks between relays (up to some
 * 100 MB, then no more) would hide a leak of ours.
 */
const SMALL_RINGS = { queues: { ringBytes: 1 } };

const [scenario, shards, count] = isMainThread
  ? [process.argv[2], Number(process.argv[3]), Number(process.argv[4] ?? 0)]
  : [workerData.scenario, workerData.shards, 0];

const scenarios = {
  /** Starts, uses and closes `count` relays one after another; prints descriptors and memory as it goes. */
  async cycles() {
    for (let cycle = 1; cycle <= count; cycle++) {
      const relay = await start(SMALL_RINGS);
      await exchange(relay.url);
      await relay.server.close();
      if (cycle % 20 === 0) print({ cycle, ...usage() });
    }
  },

  /** The same without a client, and without waiting for anything that close() does not wait for itself. */
  async 'hasty cycles'() {
    for (let cycle = 1; cycle <= count; cycle++) {
      const server = new Server(PrivateKey.generate(), { shards, handshake: { threads: 1 }, ...SMALL_RINGS });
      // At once, while it begins to listen, or just when its shards run and its handshake threads may not yet.
      if (cycle % 3 === 1) void server.listen({ host: '127.0.0.1', port: 0 }).catch(() => undefined);
      if (cycle % 3 === 2) await server.ready();
      await server.close();
      if (cycle % 20 === 0) print({ cycle, ...usage() });
    }
  },

  async 'close and end'() {
    const relay = await start();
    await exchange(relay.url);
    await relay.server.close();
  },

  async 'close with clients and end'() {
    const relay = await start();
    const sockets = await idleSockets(relay.port);
    await traffic(relay.url);
    await relay.server.close();
    for (const socket of sockets) socket.destroy();
  },

  async 'exit at once'() {
    new Server(PrivateKey.generate(), { shards, handshake: { threads: 1 } });
    process.exit(EXIT_CODE);
  },

  async 'exit when listening'() {
    await start();
    process.exit(EXIT_CODE);
  },

  async 'exit in traffic'() {
    const relay = await start();
    await traffic(relay.url);
    process.exit(EXIT_CODE);
  },

  async 'exit in handshakes'() {
    const relay = await start();
    await idleSockets(relay.port);
    for (let n = 0; n < 50; n++)
      void new RelayClient(PrivateKey.generate(), relay.url).connect().catch(() => undefined);
    await exchange(relay.url);
    process.exit(EXIT_CODE);
  },

  async 'exit while closing'() {
    const relay = await start();
    await traffic(relay.url);
    void relay.server.close();
    setImmediate(() => process.exit(EXIT_CODE));
  },

  async 'exit with several relays'() {
    const relays = [await start(), await start(), await start()];
    for (const relay of relays) await traffic(relay.url);
    await relays[1].server.close();
    process.exit(EXIT_CODE);
  },

  async 'uncaught error in traffic'() {
    const relay = await start();
    await traffic(relay.url);
    throw new Error('on purpose');
  },

  /** Relays in worker threads that are terminated in the middle of traffic; then one that works. */
  async 'terminate workers'() {
    for (let round = 0; round < count; round++) {
      const worker = new Worker(new URL(import.meta.url), { workerData: { scenario: 'run in worker', shards } });
      await once(worker, 'message');
      await worker.terminate();
    }
    await scenarios['close and end']();
  },

  async 'run in worker'() {
    const relay = await start();
    await traffic(relay.url);
    parentPort.postMessage('in traffic');
  },
};

await scenarios[scenario]();
print({ done: scenario });

async function start(options = {}) {
  const server = new Server(PrivateKey.generate(), { shards, handshake: { threads: 1 }, ...options });
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
  return { server, port, url: `http://127.0.0.1:${port}/derp` };
}

/** One packet from one client to another. */
async function exchange(url) {
  const [a, b] = await clients(url, 2);
  await a.send(b.publicKey, Buffer.from('hello'));
  for (;;) if ((await b.recv()).type === 'packet') break;
  a.close();
  b.close();
}

/** Clients that send to each other for ever; resolves once each has received something. */
async function traffic(url) {
  const all = await clients(url, 8);
  await Promise.all(
    all.map(async (client, n) => {
      const next = all[(n + 1) % all.length].publicKey;
      const packet = Buffer.alloc(1400);
      const pump = async () => {
        for (;;) {
          for (let sent = 0; sent < 8; sent++) await client.send(next, packet);
          while ((await client.recv()).type !== 'packet');
        }
      };
      await client.send(next, packet);
      while ((await client.recv()).type !== 'packet');
      // It ends when the relay goes, as every scenario wants it.
      pump().catch(() => client.close());
    }),
  );
}

async function clients(url, number) {
  const all = Array.from({ length: number }, () => new RelayClient(PrivateKey.generate(), url));
  await Promise.all(all.map((client) => client.connect()));
  return all;
}

/** Connections at several points of their handshake. */
async function idleSockets(port) {
  const beginnings = ['', 'GET /derp', 'GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n'];
  const sockets = Array.from({ length: 30 }, () => connect(port, '127.0.0.1'));
  for (const [n, socket] of sockets.entries()) {
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(beginnings[n % beginnings.length]);
  }
  return sockets;
}

/** Open descriptors and resident bytes of this process. */
function usage() {
  globalThis.gc?.();
  const threads = Number(/^Threads:\s*(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
  return { fds: readdirSync('/proc/self/fd').length, threads, rss: process.memoryUsage.rss() };
}

function print(value) {
  if (isMainThread) console.log(JSON.stringify(value));
}
