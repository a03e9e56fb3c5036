/** Streams of TLS that were changed, cut and mixed up: the relay goes on, and nothing of them stays. */
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { expect, it } from 'vitest';
import { CutSocket } from './support/cut_socket.js';
import { clientInfoBody, Frame, frame, RawClient, sendPacketFrame, upgradeHead } from './support/raw_client.js';
import { patterned, type TestRelay, withRelay } from './support/relay.js';

/** `DERPLANE_MUTATIONS=100000 npx vitest run test/tls_mutations.test.ts` for a long run; the seed is printed with a failure. */
const CONNECTIONS = Number(process.env['DERPLANE_MUTATIONS'] ?? 1_500);
const SEED = Number(process.env['DERPLANE_SEED'] ?? 1);
const AT_ONCE = 16;

it(`of TLS do not harm others (seed ${SEED})`, { timeout: 60_000 + CONNECTIONS * 40 }, () =>
  withRelay({ shards: 2, tls: true, handshake: { requestTimeout: 500, clientInfoTimeout: 500 } }, async (relay) => {
    const [from, to] = await relay.pair('across shards');
    const random = generator(SEED);
    const recorded = await record(relay, to);
    const rounds = async (count: number) => {
      let left = count;
      const worker = async () => {
        while (left-- > 0) await (random(2) === 0 ? replay(relay, recorded, random) : spoil(relay, random));
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
      await relay.untilCounter(['gauge_current_connections'], (value) => value === 2);
      await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
    };
    await rounds(CONNECTIONS / 3);
    const before = { descriptors: descriptors(), memory: process.memoryUsage.rss() };
    await rounds((CONNECTIONS * 2) / 3);
    await expect.poll(descriptors, { timeout: 10_000 }).toBeLessThanOrEqual(before.descriptors);
    // What a leak of one session a connection would be many times over.
    expect(process.memoryUsage.rss() - before.memory).toBeLessThan(48 << 20);
    await from.send(to.publicKey, patterned(1000));
    expect((await to.expectPacket()).packet).toEqual(patterned(1000));
  }),
);

/** What one whole connection sent. */
async function record(relay: TestRelay, to: RawClient): Promise<Buffer> {
  const cut = await CutSocket.connect(relay.port);
  const tls = connectTls({ socket: cut, rejectUnauthorized: false });
  const client = new RawClient(tls);
  await client.open({ fastStart: true });
  await client.send(to.publicKey, patterned(3000));
  await client.settle();
  client.destroy();
  await to.expectPacket();
  await to.expectPeerGone();
  return Buffer.concat(cut.written);
}

/** A changed copy of a connection, of which the relay can understand ClientHello at most. */
async function replay(relay: TestRelay, recorded: Buffer, random: (below: number) => number): Promise<void> {
  const socket = connectTcp(relay.port, '127.0.0.1');
  const over = ended(socket);
  await once(socket, 'connect').catch(() => undefined);
  socket.end(mutate(recorded, random));
  await over;
}

/** A connection that is well up to some record, and changed from there on. */
async function spoil(relay: TestRelay, random: (below: number) => number): Promise<void> {
  const cut = await CutSocket.connect(relay.port);
  const over = ended(cut.socket);
  let well = random(14);
  const write = cut._write.bind(cut);
  cut._write = (chunk, encoding, done) => write(well-- > 0 ? chunk : mutate(chunk, random), encoding, done);
  const version = random(2) === 0 ? 'TLSv1.2' : 'TLSv1.3';
  const tls = connectTls({ socket: cut, rejectUnauthorized: false, minVersion: version, maxVersion: version });
  const client = new RawClient(tls);
  tls.once('secureConnect', () => {
    client.push(upgradeHead({ fastStart: true }));
    const serverKey = relay.server.publicKey.bytes;
    client.push(frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey })));
    for (let n = 0; n < 8; n++) client.push(sendPacketFrame(client.publicKey, patterned(random(20_000))));
    if (random(2) === 0) tls.end();
    else setImmediate(() => cut.socket.end());
  });
  tls.once('error', () => cut.destroy());
  await over;
  tls.destroy();
}

/** Changes bytes, leaves some out, doubles some, or adds noise. */
function mutate(bytes: Buffer, random: (below: number) => number): Buffer {
  let out = Buffer.from(bytes);
  for (let n = 1 + random(4); n > 0 && out.length > 0; n--) {
    // Half of the changes are near the beginning, where the lengths are.
    const at = random(2) === 0 ? random(Math.min(out.length, 64)) : random(out.length);
    const size = 1 + random(40);
    const [head, rest] = [out.subarray(0, at), out.subarray(at)];
    switch (random(5)) {
      case 0:
        out[at] = random(256);
        break;
      case 1:
        out[at] = (out[at] as number) ^ (1 << random(8));
        break;
      case 2:
        out = Buffer.concat([head, rest.subarray(size)]);
        break;
      case 3:
        out = Buffer.concat([head, rest.subarray(0, size), rest]);
        break;
      default:
        out = Buffer.concat([head, Buffer.from(Array.from({ length: size }, () => random(256))), rest]);
    }
  }
  return out;
}

/** Resolves when the connection is closed on both sides. */
function ended(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket
      .on('error', () => undefined)
      .on('end', () => socket.end())
      .on('close', () => resolve())
      .resume();
  });
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Pseudo-random integers from 0 to below a bound. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return below === 0 ? 0 : Math.floor((state / 2 ** 32) * below);
  };
}
