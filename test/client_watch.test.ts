/** The watch loop: who is connected to a relay, over reconnects. */
import { type PeerGoneMessage, type PeerPresentMessage, PrivateKey, type PublicKey, RelayClient } from 'derplane';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FrameType, frameOf } from '../dist/protocol/frame.js';
import { type FakeConnection, FakeRelay } from './support/fake_relay.js';
import { LogWatch } from './support/log_watch.js';
import { withRelay } from './support/relay.js';

const MESH_KEY = '1f'.repeat(32);
const [A, B] = [PrivateKey.generate().publicKey, PrivateKey.generate().publicKey];

/** Adds and removals in their order, to be waited for. */
class Changes {
  readonly #seen: string[] = [];
  #wake = () => {};

  add = ({ key }: PeerPresentMessage) => this.#push(`add ${nameOf(key)}`);
  remove = ({ peer, reason }: PeerGoneMessage) => this.#push(`remove ${nameOf(peer)} ${reason}`);
  onError = (error: Error) => this.#push(`error ${(error as { code?: string }).code}`);

  get seen(): readonly string[] {
    return this.#seen;
  }

  async until(count: number): Promise<string[]> {
    while (this.#seen.length < count) await new Promise<void>((resolve) => (this.#wake = resolve));
    return this.#seen.splice(0);
  }

  #push(change: string): void {
    this.#seen.push(change);
    this.#wake();
  }
}

function nameOf(key: PublicKey): string {
  return key.equals(A) ? 'A' : key.equals(B) ? 'B' : key.shortString();
}

const present = (key: PublicKey) => frameOf(FrameType.PEER_PRESENT, key.bytes);
const gone = (key: PublicKey, reason: number) => frameOf(FrameType.PEER_GONE, key.bytes, Buffer.from([reason]));

describe('a watch loop', () => {
  let relay: FakeRelay;
  let client: RelayClient;
  let changes: Changes;
  let log: LogWatch;

  beforeEach(async () => {
    relay = await FakeRelay.start();
    client = new RelayClient(PrivateKey.generate(), relay.url, { meshKey: MESH_KEY });
    changes = new Changes();
    log = new LogWatch();
  });

  afterEach(async () => {
    client.close();
    await relay.close();
  });

  const run = (options = {}) => {
    const { add, remove, onError } = changes;
    return client.runWatchConnectionLoop({ add, remove, onError, retryInterval: 10, logger: log, ...options });
  };

  async function watched(): Promise<FakeConnection> {
    const connection = await relay.client();
    expect((await connection.nextFrame()).type).toBe(FrameType.WATCH_CONNS);
    return connection;
  }

  it('tells of every connection, and of keys that are gone for either reason', async () => {
    const ended = run();
    const connection = await watched();
    connection.write(present(A), present(B), present(A), gone(A, 0), gone(B, 1));
    expect(await changes.until(5)).toEqual(['add A', 'add B', 'add A', 'remove A 0', 'remove B 1']);
    client.close();
    expect(await ended).toBe('closed');
  });

  it('takes everything back when the connection is lost, and asks again', async () => {
    void run();
    const first = await watched();
    first.write(present(A), present(B));
    await changes.until(2);
    first.socket.destroy();
    const broke = 0xf0;
    expect(await changes.until(3)).toEqual([`remove A ${broke}`, `remove B ${broke}`, 'error ERR_DERP_CLOSED']);
    await log.line(/^INFO mesh\(".*"\): reconnected; clearing 2 forwarding mappings$/);
    await log.line(/^WARN mesh\(".*"\): Recv: /);
    const second = await watched();
    second.write(present(B));
    expect(await changes.until(1)).toEqual(['add B']);
    await log.line(/^INFO mesh\(".*"\): connected; 1 peers$/);
  });

  it('goes on when it cannot connect', async () => {
    void run();
    (await relay.connection()).socket.destroy();
    expect(await changes.until(1)).toEqual(['error ERR_DERP_CONNECT']);
    await log.line(/^WARN mesh\(".*"\): mesh connect: cannot connect to /);
    await watched();
  });

  it('ends for good at the relay that it shall ignore', async () => {
    const ended = run({ ignoreServerKey: relay.privateKey.publicKey });
    const connection = await relay.client();
    expect(await ended).toBe('self');
    await log.line(/^INFO mesh\(".*"\): detected self-connect; ignoring host$/);
    await connection.ended();
    await expect(client.connect()).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
  });

  it('ends by its signal, while it waits too', async () => {
    const controller = new AbortController();
    const ended = run({ signal: controller.signal, retryInterval: 1_000_000 });
    (await relay.connection()).socket.destroy();
    await changes.until(1);
    controller.abort();
    expect(await ended).toBe('closed');
    expect(await run({ signal: controller.signal })).toBe('closed');
  });

  it('takes everything back when it ends', async () => {
    const ended = run();
    (await watched()).write(present(A));
    await changes.until(1);
    client.close();
    await ended;
    expect(changes.seen).toEqual([`remove A ${0xf0}`]);
  });

  it('needs a mesh key', async () => {
    const plain = new RelayClient(PrivateKey.generate(), relay.url);
    await expect(plain.runWatchConnectionLoop(changes)).rejects.toMatchObject({ code: 'ERR_DERP_NO_MESH_KEY' });
  });
});

describe('a watch loop on a relay', () => {
  it('makes a mesh of JavaScript forwarders', () =>
    withRelay({ shards: 2, mesh: { key: MESH_KEY } }, (here) =>
      withRelay({ shards: 2, mesh: { key: MESH_KEY } }, async (there) => {
        const link = new RelayClient(here.server.privateKey, there.url, { meshKey: MESH_KEY });
        const ended = link.runWatchConnectionLoop({
          add: ({ key }) => here.server.addPacketForwarder(key, link),
          remove: ({ peer }) => here.server.removePacketForwarder(peer, link),
        });
        const [from, to] = [await here.connect(), await there.connect()];
        let arrived = false;
        const arriving = to.expectPacket().finally(() => {
          arrived = true;
        });
        while (!arrived) {
          await from.send(to.publicKey, Buffer.from('over JavaScript'));
          await from.settle();
        }
        expect(await arriving).toEqual({ source: from.publicKey.hex, packet: Buffer.from('over JavaScript') });
        link.close();
        await ended;
        await expect.poll(() => here.counter('gauge_clients_remote')).toBe(0);
      }),
    ));
});
