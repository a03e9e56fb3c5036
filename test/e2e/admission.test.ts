/** A relay that admits what its tailscaled knows: the nodes of one tailnet, and nobody else. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { Network } from './network.js';
import { e2eMissing } from './programs.js';
import { REGION, Relay } from './relay.js';
import { Headscale, TailscaleNode } from './tailnet.js';

const library = fileURLToPath(new URL('../../dist/index.js', import.meta.url));
const stranger = fileURLToPath(new URL('guests/stranger.js', import.meta.url));

describe.skipIf(e2eMissing !== undefined)('a relay with -verify-clients', () => {
  let folder: string;
  let network: Network;
  let relay: Relay;
  let own: TailscaleNode;
  let alice: TailscaleNode;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-e2e-'));
    network = await Network.create({ relay: {}, control: {}, alice: { isolated: true } });
    try {
      const args = ['-verify-clients', '-socket', join(folder, 'relay', 'socket')];
      relay = new Relay({ network, host: 'relay', hostname: network.address('relay'), folder, args });
      await relay.start();
      const headscale = await Headscale.start(
        network,
        'control',
        join(folder, 'headscale'),
        await relay.headscaleMap(),
      );
      const authKey = await headscale.authKey();
      own = await TailscaleNode.start(network, 'relay', join(folder, 'relay'));
      await own.up(headscale, authKey);
      alice = await TailscaleNode.start(network, 'alice', join(folder, 'alice'));
      await alice.up(headscale, authKey);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${network.output()}`);
    }
  });

  afterAll(async () => {
    await network?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it('admits the nodes of the tailnet', async () => {
    onTestFailed(() => console.error(network.output()));
    expect(await own.ping(alice)).toMatch(new RegExp(`^pong from alice .* via DERP\\(${REGION}\\)`));
  });

  it('refuses a key that the tailnet does not know, as its check finds well', async () => {
    onTestFailed(() => console.error(network.output()));
    const address = network.address('relay');
    const args = [stranger, library, `https://${address}/derp`, join(folder, 'certs', `${address}.crt`)];
    expect(await network.run('alice', process.execPath, args).succeeded()).toContain('refused: ERR_DERP_CLOSED');
    expect(network.output()).toMatch(
      /client (nodekey:[0-9a-f]{64}) rejected: peer \1 not authorized \(not found in local tailscaled\)/,
    );
    await relay.consistencyCheck();
  });
});
