/** Two real Tailscale nodes that can reach each other through the relay only. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { Network } from './network.js';
import { e2eMissing } from './programs.js';
import { REGION, Relay } from './relay.js';
import { Headscale, TailscaleNode } from './tailnet.js';
import { Transfer } from './transfer.js';

const SIZE = 64;

describe.skipIf(e2eMissing !== undefined)('two Tailscale nodes', () => {
  let folder: string;
  let network: Network;
  let relay: Relay;
  let alice: TailscaleNode;
  let bob: TailscaleNode;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-e2e-'));
    network = await Network.create({ relay: {}, control: {}, alice: { isolated: true }, bob: { isolated: true } });
    try {
      relay = new Relay({ network, host: 'relay', hostname: network.address('relay'), folder });
      await relay.start();
      const map = await relay.headscaleMap();
      const headscale = await Headscale.start(network, 'control', join(folder, 'headscale'), map);
      const authKey = await headscale.authKey();
      [alice, bob] = await Promise.all([joined('alice', headscale, authKey), joined('bob', headscale, authKey)]);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${network.output()}`);
    }
  });

  afterAll(async () => {
    await network?.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function joined(name: string, headscale: Headscale, authKey: string): Promise<TailscaleNode> {
    const node = await TailscaleNode.start(network, name, join(folder, name));
    await node.up(headscale, authKey);
    return node;
  }

  it('come up with the DERP map that the relay printed and reach each other through it', async () => {
    onTestFailed(() => console.error(network.output()));
    for (const [from, to] of [
      [alice, bob],
      [bob, alice],
    ] as const) {
      expect(await from.ping(to)).toMatch(new RegExp(`^pong from ${to.name} .* via DERP\\(${REGION}\\)`));
      const { Self, Peer } = await from.status();
      expect(Self.Relay).toBe(REGION);
      expect(Object.values(Peer!)).toEqual([
        expect.objectContaining({ HostName: to.name, Relay: REGION, CurAddr: '' }),
      ]);
    }
    await relay.consistencyCheck();
  });

  it(`move ${SIZE} MiB, which arrive intact`, async () => {
    onTestFailed(() => console.error(network.output()));
    const transfer = await Transfer.start(alice, bob, SIZE);
    const { sent, arrived } = await transfer.digests();
    expect(arrived).toBe(sent);
    await relay.consistencyCheck();
  });

  it('go on by themselves after the relay was killed in the middle and started again', async () => {
    onTestFailed(() => console.error(network.output()));
    const transfer = await Transfer.start(bob, alice, SIZE);
    await transfer.received(SIZE / 4);
    await relay.kill();
    expect(transfer.progress()).toBeLessThan(SIZE);
    await relay.start();
    const { sent, arrived } = await transfer.digests();
    expect(arrived).toBe(sent);
    await relay.consistencyCheck();
  });
});
