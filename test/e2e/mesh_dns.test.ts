/** A mesh that follows the records of a real DNS server: relays join and leave, those that stay go on. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { makeCertificate } from '../support/certificates.js';
import { Network } from './network.js';
import type { Program } from './program.js';
import { commandMissing, networkMissing } from './programs.js';
import { kind, Relay } from './relay.js';

const RELAYS = ['relay-a', 'relay-b', 'relay-c'];
const HOSTNAME = 'derp.test';
const NAME = 'relays.test';
const library = fileURLToPath(new URL('../../dist/index.js', import.meta.url));
const guest = fileURLToPath(new URL('guests/exchange.js', import.meta.url));
const missing =
  kind === 'derper' ? 'derper has no such entries' : (networkMissing ?? commandMissing('dnsmasq', '--version'));

describe.skipIf(missing !== undefined)('relays that mesh with a DNS name', () => {
  let folder: string;
  let network: Network;
  let records: string;
  let server: Program;
  const relays = new Map<string, Relay>();

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-e2e-'));
    network = await Network.create({ dns: {}, ...Object.fromEntries(RELAYS.map((relay) => [relay, {}])) }, 'dns');
    records = join(folder, 'records');
    const { cert, keyPem } = await makeCertificate({ names: [HOSTNAME] });
    await mkdir(join(folder, 'certs'));
    await writeFile(join(folder, 'certificate.pem'), cert);
    await writeFile(join(folder, 'certs', `${HOSTNAME}.crt`), cert);
    await writeFile(join(folder, 'certs', `${HOSTNAME}.key`), keyPem, { mode: 0o600 });
    await writeFile(join(folder, 'psk'), '5e'.repeat(32));
    await publish(['relay-a', 'relay-b']);
    server = network.run('dns', 'dnsmasq', [
      '--keep-in-foreground',
      '--no-daemon',
      '--no-resolv',
      '--no-hosts',
      '--user=root',
      `--addn-hosts=${records}`,
      '--local-ttl=0',
    ]);
    await server.line(/read .* names|started/);
    await Promise.all(['relay-a', 'relay-b'].map(start));
  });

  afterAll(async () => {
    await network?.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Sets the addresses of the name. */
  async function publish(hosts: string[], ...more: string[]): Promise<void> {
    const addresses = [...hosts.map((host) => network.address(host)), ...more];
    await writeFile(records, addresses.map((address) => `${address} ${NAME}\n`).join(''));
    server?.signal('SIGHUP');
  }

  async function start(host: string): Promise<void> {
    const args = ['-mesh-psk-file', join(folder, 'psk'), '-mesh-with', `dns:${NAME}`, '-mesh-dns-interval', '300ms'];
    const env = { SSL_CERT_FILE: join(folder, 'certificate.pem') };
    const relay = new Relay({ network, host, hostname: HOSTNAME, folder, args, env });
    relays.set(host, relay);
    await relay.start();
  }

  const relay = (host: string): Relay => relays.get(host)!;
  const linked = (from: string, to: string) => relay(from).linked(`${network.address(to)}:443`);

  const linkedTo = (address: string, count = 1) => relay('relay-a').linked(`${address}:443`, count);

  it('link to every address but their own, follow one that joins and one that leaves, and lose nothing meanwhile', async () => {
    onTestFailed(() => console.error(network.output()));
    await Promise.all([linked('relay-a', 'relay-b'), linked('relay-b', 'relay-a')]);
    const [a, b] = ['relay-a', 'relay-b'].map((host) => `https://${HOSTNAME}/${network.address(host)}`);
    const traffic = network.run('dns', process.execPath, [guest, library, a!, b!, join(folder, 'certificate.pem')]);
    await traffic.line(/exchanging/);

    await start('relay-c');
    await publish(RELAYS);
    const addressOfC = network.address('relay-c');
    await Promise.all(['relay-a', 'relay-b'].flatMap((host) => [linked(host, 'relay-c'), linked('relay-c', host)]));

    await publish(['relay-a', 'relay-b']);
    await Promise.all(
      ['relay-a', 'relay-b'].map((host) => relay(host).line(`${addressOfC} left DNS; ending its link`)),
    );
    await relay('relay-c').kill();

    traffic.stdin.end();
    expect(await traffic.succeeded()).toMatch(/^sent \d{2,} lost 0$/m);
    for (const host of ['relay-a', 'relay-b']) {
      await relay(host).line('detected self-connect; ignoring host');
      await relay(host).consistencyCheck();
    }
  });

  it('have one link to a relay with two addresses', async () => {
    onTestFailed(() => console.error(network.output()));
    const second = await network.addAddress('relay-b');
    await publish(['relay-a', 'relay-b'], second);
    await relay('relay-a').line(
      `"${second}:443"): is the same relay as ${network.address('relay-b')}:443; one link is enough`,
    );
    await publish(['relay-a'], second);
    await relay('relay-a').line(`${network.address('relay-b')} left DNS; ending its link`);
    await linkedTo(second);
    await publish(['relay-a', 'relay-b']);
    await relay('relay-a').line(`${second} left DNS; ending its link`);
    await linkedTo(network.address('relay-b'), 2);
  });

  it('have a relay back that restarted, without waiting for DNS', async () => {
    onTestFailed(() => console.error(network.output()));
    await relay('relay-b').kill();
    await relay('relay-a').line('Recv: ');
    await relay('relay-b').start();
    await linked('relay-b', 'relay-a');
    await linkedTo(network.address('relay-b'), 3);
  });
});
