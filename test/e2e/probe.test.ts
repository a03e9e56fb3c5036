/** Tailscale's own prober, against relays with names and certificates as in production. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFailed } from 'vitest';
import { makeCertificate } from '../support/certificates.js';
import { Network } from './network.js';
import { e2eMissing, program } from './programs.js';
import { kind, NEWEST_DERPER, Relay } from './relay.js';

/** Of two versions. */
const PROBERS = ['derpprobe', 'derpprobe-newest'];
const NAMES = ['relay-a', 'relay-b'];
const IPV6 = new Map([...NAMES, 'prober'].map((host, i) => [host, `fd78::${i + 1}`]));

describe.skipIf(e2eMissing !== undefined)('derpprobe finds all well', () => {
  let folder: string;
  let network: Network;
  let certificate: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-e2e-'));
    certificate = join(folder, 'certificate.pem');
    network = await Network.create(Object.fromEntries([...NAMES, 'prober'].map((host) => [host, {}])));
    await Promise.all([...IPV6].map(([host, address]) => network.addIpv6(host, address)));
  });

  afterEach(async () => {
    await network.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Starts relays with STUN and one certificate, which everybody trusts; one after the other, so that the last finds the others. */
  async function startRelays(names: string[], args: string[] = [], kinds: string[] = []): Promise<Relay[]> {
    const { cert, keyPem } = await makeCertificate({ names });
    await writeFile(certificate, cert);
    await mkdir(join(folder, 'certs'));
    const env = { SSL_CERT_FILE: certificate };
    const relays: Relay[] = [];
    for (const [i, host] of names.entries()) {
      await writeFile(join(folder, 'certs', `${host}.crt`), cert);
      await writeFile(join(folder, 'certs', `${host}.key`), keyPem, { mode: 0o600 });
      const relay = { network, host, hostname: host, folder, args: ['-stun', ...args], env };
      relays.push(new Relay({ ...relay, ...(kinds[i] && { kind: kinds[i] }) }));
    }
    for (const relay of relays) await relay.start();
    return relays;
  }

  /** Probes a region of these relays once, also with 1 MB through each pair; resolves with the probes that were good. */
  async function probe(prober: string, names: string[]): Promise<string[]> {
    const map = join(folder, 'map.json');
    await writeFile(map, JSON.stringify(derpMap(names)));
    const args = ['-once', '-spread=false', '-derp-map', `file://${map}`, '-bw-interval', '1s'];
    const output = await network.run('prober', program(prober), args, { SSL_CERT_FILE: certificate }).succeeded();
    return [...output.matchAll(/good: (\S+):/g)].map(([, name]) => name!).toSorted();
  }

  function derpMap(names: string[]): object {
    const nodes = names.map((host) => ({
      Name: host,
      RegionID: 900,
      HostName: host,
      IPv4: network.address(host),
      IPv6: IPV6.get(host),
    }));
    return { Regions: { 900: { RegionID: 900, RegionCode: 'e2e', RegionName: 'End to end', Nodes: nodes } } };
  }

  /** What is good of relays that all reach each other. */
  function allOf(names: string[]): string[] {
    const probes = names.flatMap((from) => [
      `derp/e2e/${from}/tls`,
      `derp/e2e/${from}/udp`,
      `derp/e2e/${from}/udp6`,
      ...names.flatMap((to) => [`derp/e2e/${from}/${to}/bw`, `derp/e2e/${from}/${to}/mesh`]),
    ]);
    return [...probes, 'derpmap-probe'].toSorted();
  }

  /** Starts two relays in a mesh; resolves once each has a link to the other. */
  async function startMesh(kinds?: string[]): Promise<Relay[]> {
    const pskFile = join(folder, 'psk');
    await writeFile(pskFile, '5e'.repeat(32));
    const relays = await startRelays(NAMES, ['-mesh-psk-file', pskFile, '-mesh-with', NAMES.join(',')], kinds);
    await Promise.all(relays.map((relay, i) => relay.linked(NAMES[1 - i]!)));
    return relays;
  }

  it('with one relay', async () => {
    onTestFailed(() => console.error(network.output()));
    const [relay] = await startRelays(['relay-a']);
    for (const prober of PROBERS) expect(await probe(prober, ['relay-a'])).toEqual(allOf(['relay-a']));
    await relay!.consistencyCheck();
  });

  // Tailscale's relay does not say when a link is up that it had to dial twice: here it is the one that dials last.
  it.skipIf(kind === 'derper').each([
    ['a mesh of two relays', undefined],
    ['a mesh with the newest derper', [kind, NEWEST_DERPER]],
  ])('with %s', async (_, kinds) => {
    onTestFailed(() => console.error(network.output()));
    const relays = await startMesh(kinds);
    for (const prober of PROBERS) expect(await probe(prober, NAMES)).toEqual(allOf(NAMES));
    for (const relay of relays) await relay.consistencyCheck();
  });
});
