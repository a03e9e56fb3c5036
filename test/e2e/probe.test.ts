/** Tailscale's own prober, against relays with names and certificates as in production. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFailed } from 'vitest';
import { makeCertificate } from '../support/certificates.js';
import { Network } from './network.js';
import { e2eMissing, program } from './programs.js';
import { kind, Relay } from './relay.js';

const NAMES = ['relay-a', 'relay-b'];

describe.skipIf(e2eMissing !== undefined)('derpprobe finds all well', () => {
  let folder: string;
  let network: Network;
  let certificate: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-e2e-'));
    certificate = join(folder, 'certificate.pem');
    network = await Network.create(Object.fromEntries([...NAMES, 'prober'].map((host) => [host, {}])));
  });

  afterEach(async () => {
    await network.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Starts relays that have one certificate, which everybody trusts. */
  async function startRelays(names: string[], args: string[] = []): Promise<Relay[]> {
    const { cert, keyPem } = await makeCertificate({ names });
    await writeFile(certificate, cert);
    await mkdir(join(folder, 'certs'));
    const env = { SSL_CERT_FILE: certificate };
    const relays: Relay[] = [];
    for (const host of names) {
      await writeFile(join(folder, 'certs', `${host}.crt`), cert);
      await writeFile(join(folder, 'certs', `${host}.key`), keyPem, { mode: 0o600 });
      relays.push(new Relay({ network, host, hostname: host, folder, args, env }));
    }
    await Promise.all(relays.map((relay) => relay.start()));
    return relays;
  }

  /** Probes a region of these relays once, also with 1 MB through each pair; resolves with the probes that were good. */
  async function probe(names: string[]): Promise<string[]> {
    const map = join(folder, 'map.json');
    await writeFile(map, JSON.stringify(derpMap(names)));
    const args = ['-once', '-spread=false', '-derp-map', `file://${map}`, '-bw-interval', '1s'];
    const output = await network.run('prober', program('derpprobe'), args, { SSL_CERT_FILE: certificate }).succeeded();
    return [...output.matchAll(/good: (\S+):/g)].map(([, name]) => name!);
  }

  function derpMap(names: string[]): object {
    const nodes = names.map((host) => ({
      Name: host,
      RegionID: 900,
      HostName: host,
      IPv4: network.address(host),
      STUNPort: -1,
    }));
    return { Regions: { 900: { RegionID: 900, RegionCode: 'e2e', RegionName: 'End to end', Nodes: nodes } } };
  }

  it('with one relay', async () => {
    onTestFailed(() => console.error(network.output()));
    const [relay] = await startRelays(['relay-a']);
    expect(await probe(['relay-a'])).toEqual([
      'derp/e2e/relay-a/relay-a/bw',
      'derp/e2e/relay-a/relay-a/mesh',
      'derp/e2e/relay-a/tls',
      'derpmap-probe',
    ]);
    await relay!.consistencyCheck();
  });

  // Tailscale's relay does not say when a link is up that it had to dial twice.
  it.skipIf(kind === 'derper')('with a mesh of two relays', async () => {
    onTestFailed(() => console.error(network.output()));
    const pskFile = join(folder, 'psk');
    await writeFile(pskFile, '5e'.repeat(32));
    const relays = await startRelays(NAMES, ['-mesh-psk-file', pskFile, '-mesh-with', NAMES.join(',')]);
    await Promise.all(relays.map((relay, i) => relay.linked(NAMES[1 - i]!)));
    const good = await probe(NAMES);
    for (const from of NAMES) {
      expect(good).toContain(`derp/e2e/${from}/tls`);
      for (const to of NAMES) {
        expect(good).toContain(`derp/e2e/${from}/${to}/mesh`);
        expect(good).toContain(`derp/e2e/${from}/${to}/bw`);
      }
    }
    for (const relay of relays) await relay.consistencyCheck();
  });
});
