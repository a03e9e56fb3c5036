/** STUN between hosts: of several addresses each answers for itself, and Tailscale's tools see it over IPv4 and IPv6. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { buildOwn } from '../support/go_programs.js';
import { Network } from './network.js';
import { e2eMissing, networkMissing, program } from './programs.js';

const PORT = '3478';
const RELAY_IPV6 = ['fd78::1', 'fd78::101'];
const CLIENT_IPV6 = 'fd78::2';
const BUILD_TIMEOUT = 600_000;
const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const guest = fileURLToPath(new URL('guests/stun_ask.js', import.meta.url));

describe.skipIf(networkMissing !== undefined)('STUN of a relay with several addresses', () => {
  let folder: string;
  let network: Network;
  let relayIpv4: string[];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-e2e-'));
    network = await Network.create({ relay: {}, client: {} });
    relayIpv4 = [network.address('relay'), await network.addAddress('relay')];
    for (const address of RELAY_IPV6) await network.addIpv6('relay', address);
    await network.addIpv6('client', CLIENT_IPV6);
    const relay = network.run('relay', process.execPath, [
      main,
      '-a',
      ':3340',
      '-derp=false',
      '-c',
      join(folder, 'key'),
    ]);
    await relay.line(/STUN server listening on/);
  });

  afterAll(async () => {
    await network?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it('answers from the address that was asked, and tells the one that asked', async () => {
    onTestFailed(() => console.error(network.output()));
    const asked = [...relayIpv4, ...RELAY_IPV6];
    const answers = await network.run('client', process.execPath, [guest, PORT, ...asked]).succeeded();
    const lines = asked.map((address) => {
      const told = address.includes(':') ? CLIENT_IPV6 : network.address('client');
      return `${address} answered by ${address}, told ${told}`;
    });
    expect(answers.trim().split('\n')).toEqual(lines);
  });

  it('is found over IPv4 and IPv6 by what `tailscale netcheck` runs', { timeout: BUILD_TIMEOUT }, async () => {
    onTestFailed(() => console.error(network.output()));
    const derpinterop = await buildOwn('derpinterop', BUILD_TIMEOUT);
    const servers = `${relayIpv4[0]}:${PORT},[${RELAY_IPV6[0]}]:${PORT}`;
    const args = ['-url', 'http://relay/derp', '-stun', servers, 'netcheck'];
    await network.run('client', derpinterop, args).succeeded();
  });

  it.skipIf(e2eMissing !== undefined)('is well to derpprobe, over IPv4 and IPv6', async () => {
    onTestFailed(() => console.error(network.output()));
    const map = join(folder, 'map.json');
    const node = {
      Name: 'stun',
      RegionID: 900,
      HostName: 'relay',
      IPv4: relayIpv4[0],
      IPv6: RELAY_IPV6[0],
      STUNOnly: true,
    };
    const region = { RegionID: 900, RegionCode: 'e2e', RegionName: 'End to end', Nodes: [node] };
    await writeFile(map, JSON.stringify({ Regions: { 900: region } }));
    const args = ['-once', '-spread=false', '-derp-map', `file://${map}`, '-tls-interval=0', '-mesh-interval=0'];
    const output = await network.run('client', program('derpprobe'), args).succeeded();
    expect([...output.matchAll(/good: (\S+):/g)].map(([, name]) => name).toSorted()).toEqual([
      'derp/e2e/stun/udp',
      'derp/e2e/stun/udp6',
      'derpmap-probe',
    ]);
  });
});
