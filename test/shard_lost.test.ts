/** A shard owns keys that nobody else can serve: when its thread ends, the relay ends, and says so. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { type Logger, PrivateKey, RelayClient, Server, silentLogger } from 'derplane';
import { afterEach, expect, test } from 'vitest';
import { startDerplane } from './support/derplane.js';

const servers: Server[] = [];
afterEach(() => Promise.all(servers.splice(0).map((server) => server.close())));

/** A relay with the workers of its shards, in the order in which they got ready. */
async function startServer(
  shards: number,
  logger: Logger = silentLogger,
): Promise<{ server: Server; workers: Worker[] }> {
  const workers: Worker[] = [];
  const onWorker = (worker: Worker) =>
    worker.on('message', (message) => {
      // A shard's first message tells it from the handshake threads.
      if (message === 'ready') workers.push(worker);
    });
  process.on('worker', onWorker);
  const server = new Server(PrivateKey.generate(), { shards, handshake: { threads: 1 }, logger });
  servers.push(server);
  await server.ready();
  process.off('worker', onWorker);
  expect(workers).toHaveLength(shards);
  return { server, workers };
}

test.each([1, 2, 4])('the loss of one of %i shards closes the relay and says why', async (shards) => {
  const errors: string[] = [];
  const logger = { ...silentLogger, error: (_fields: object, message: string) => void errors.push(message) };
  const { server, workers } = await startServer(shards, logger);
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
  const clients = Array.from(
    { length: 8 },
    () => new RelayClient(PrivateKey.generate(), `http://127.0.0.1:${port}/derp`),
  );
  await Promise.all(clients.map((client) => client.connect()));

  await workers.at(-1)!.terminate();
  await server.closed;

  expect(server.failure).toMatchObject({ code: 'ERR_DERP_SHARD_LOST' });
  expect(server.failure!.message).toMatch(/^shard \d ended: its thread ended$/);
  expect(errors).toEqual([`derper: ${server.failure!.message}; closing the relay`]);
  for (const client of clients) {
    await expect(untilLost(client)).resolves.toBe('ERR_DERP_CLOSED');
    client.close();
  }
  const closed = { code: 'ERR_DERP_CLOSED', cause: server.failure };
  await expect(server.listen({ host: '127.0.0.1', port: 0 })).rejects.toMatchObject(closed);
  await expect(server.ready()).rejects.toBe(server.failure);
  // Its port is free again.
  const next = createServer().listen(port, '127.0.0.1');
  await once(next, 'listening');
  await once(next.close(), 'close');
});

test('a shard that does not start fails ready()', async () => {
  const onWorker = (worker: Worker) => void worker.terminate();
  process.once('worker', onWorker); // the first worker of a relay is a shard
  const server = new Server(PrivateKey.generate(), { shards: 1, handshake: { threads: 1 } });
  servers.push(server);
  await expect(server.ready()).rejects.toMatchObject({ code: 'ERR_DERP_SHARD_LOST' });
  expect(server.failure?.code).toBe('ERR_DERP_SHARD_LOST');
});

test('a relay that is closed has not failed', async () => {
  const { server } = await startServer(2);
  let closed = false;
  const told = server.closed.then(() => {
    closed = true;
  });
  await server.consistencyCheck();
  expect({ closed, failure: server.failure }).toEqual({ closed: false, failure: undefined });
  await server.close();
  await told;
  expect(server.failure).toBeUndefined();
});

test('derplane exits with 1 and one error line', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'derplane-shard-'));
  const preload = new URL('support/lose_shard.mjs', import.meta.url);
  const args = ['-a=127.0.0.1:0', '-c', join(folder, 'derper.key'), '-shards=2', '-stun=false', '-log-level=info'];
  const relay = await startDerplane(args, { NODE_OPTIONS: `--import=${preload}` });
  try {
    relay.kill('SIGUSR2');
    const { code, signal, stderr } = await relay.ended;
    expect({ code, signal }).toEqual({ code: 1, signal: null });
    expect(
      stderr
        .split('\n')
        .filter((line) => /serving on|shards, |No mesh key|may use it/.test(line) === false && line !== ''),
    ).toEqual([expect.stringMatching(/ ERROR derper: shard \d ended: its thread ended; closing the relay shard=\d /)]);
  } finally {
    relay.kill('SIGKILL');
    await rm(folder, { recursive: true });
  }
});

/** Receives until the connection is lost, and gives the code of the error. */
async function untilLost(client: RelayClient): Promise<string> {
  try {
    for (;;) await client.recv();
  } catch (error) {
    return (error as { code: string }).code;
  }
}
