/** The DERP maps that derplane prints, used by Tailscale's own client as nodes use them. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeCertificate, makeChain } from '../support/certificates.js';
import { type RelayProcess, startDerplane } from '../support/derplane.js';
import { BUILD_TIMEOUT, buildDerpinterop, goMissing, runCheck } from './derpinterop.js';

const IP = '127.0.0.1';

describe.skipIf(goMissing !== undefined)('the map that a relay with an IP address prints', () => {
  let folder: string;
  beforeAll(async () => {
    await buildDerpinterop();
    folder = await mkdtemp(join(tmpdir(), 'derplane-go-map-'));
  }, BUILD_TIMEOUT);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  async function start(certificates: string): Promise<RelayProcess> {
    const own = ['-a', `${IP}:0`, '-http-port', '-1', '-c', join(folder, 'key'), '-shards', '1'];
    return startDerplane([...own, '-certmode', 'manual', '-certdir', certificates, '-hostname', IP]);
  }

  /** Writes both forms of the map into files. */
  async function mapsOf(relay: RelayProcess): Promise<string[]> {
    await expect.poll(() => relay.stdout(), { timeout: 10_000 }).toMatch(/^regions:\n[\s\S]*stunport: -1\n/m);
    const [, tailscale, headscale] = relay
      .stdout()
      .match(/\n("derpMap": [\s\S]*?\n})\n\n[\s\S]*?\n(regions:\n[\s\S]*)$/)!;
    const files = [join(folder, 'map.json'), join(folder, 'map.yaml')] as const;
    await writeFile(files[0], `{${tailscale}}`);
    await writeFile(files[1], headscale!);
    return [...files];
  }

  /** Lets the client use the maps of a relay with the certificate `IP.crt` of a folder. */
  async function useMaps(certificates: string, trust?: string): Promise<void> {
    const relay = await start(certificates);
    try {
      for (const derpMap of await mapsOf(relay)) {
        await runCheck('printedmap', { url: `https://${IP}:${relay.port}/derp`, derpMap, ...(trust && { trust }) });
      }
    } finally {
      relay.kill('SIGKILL');
      await relay.ended;
    }
  }

  /** A folder with a pair for the IP address. */
  async function folderWith(name: string, cert: string, keyPem: string): Promise<string> {
    const path = join(folder, name);
    await mkdir(path);
    await writeFile(join(path, `${IP}.crt`), cert);
    await writeFile(join(path, `${IP}.key`), keyPem, { mode: 0o600 });
    return path;
  }

  it('works with the certificate that it makes', () => useMaps(join(folder, 'made')));

  it('works with a self-signed one of the operator, and what else stands in its file', async () => {
    const { root } = await makeChain();
    const { cert, keyPem } = await makeCertificate({ names: [IP] });
    await useMaps(await folderWith('own', cert + root.cert, keyPem));
  });

  it('works with one that an authority issued, for nodes that trust it', async () => {
    const { root, intermediate, leaf } = await makeChain({ names: [IP] });
    const trust = join(folder, 'root.pem');
    await writeFile(trust, root.cert);
    const path = await folderWith('issued', leaf.cert + intermediate.cert, leaf.keyPem);
    await useMaps(path, trust);
    await expect(useMaps(path)).rejects.toThrow(/certificate signed by unknown authority/);
  });

  it('works with one that was made anew since it was out of date', async () => {
    const dates = { notBefore: new Date(0), notAfter: new Date(1e10) };
    const { cert, keyPem } = await makeCertificate({ names: [IP], ...dates });
    await useMaps(await folderWith('old', cert, keyPem));
  });
});
