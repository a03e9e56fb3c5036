/** A wrong mesh key at derper is named as what it is. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrivateKey, Server } from 'derplane';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeCertificate } from '../support/certificates.js';
import { GO_DERPER_TIMEOUT, goDerperMissing, startGoDerper } from '../support/go_derper.js';
import { LogWatch } from '../support/log_watch.js';

const THEIRS = 'b1'.repeat(32);
const OURS = 'b2'.repeat(32);

describe.skipIf(goDerperMissing !== undefined)('a link to derper with the wrong mesh key', () => {
  let folder: string;
  let ca: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'derplane-go-mesh-key-'));
    await writeFile(join(folder, 'psk'), THEIRS);
    const { cert, keyPem } = await makeCertificate({ names: ['relay.test'] });
    ca = cert;
    await writeFile(join(folder, 'relay.test.crt'), cert);
    await writeFile(join(folder, 'relay.test.key'), keyPem);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** What a relay says that links to a derper. */
  async function trouble(args: string[], tls: boolean): Promise<string> {
    const derper = await startGoDerper({
      args: ['-mesh-psk-file', join(folder, 'psk'), ...args],
      ...(tls && { tls: { hostname: 'relay.test', folder } }),
    });
    const log = new LogWatch();
    const server = new Server(PrivateKey.generate(), { shards: 1, mesh: { key: OURS, ca }, logger: log });
    server.addMeshPeer(tls ? `relay.test:${derper.port}/127.0.0.1` : `http://127.0.0.1:${derper.port}`);
    try {
      return await log.line(/WARN/);
    } finally {
      await server.close();
      await derper.close();
    }
  }

  it.each([
    ['plain HTTP', false],
    ['TLS', true],
  ])(
    'over %s',
    async (_, tls) => {
      expect(await trouble([], tls)).toMatch(/Recv: .*does not accept our mesh key; check -mesh-psk-file/);
    },
    GO_DERPER_TIMEOUT,
  );

  it(
    'that admits only some clients',
    async () => {
      expect(
        await trouble(['-verify-client-url=http://127.0.0.1:1/', '-verify-client-url-fail-open=false'], false),
      ).toMatch(/mesh connect: .*it accepts neither our mesh key nor our node key; check -mesh-psk-file/);
    },
    GO_DERPER_TIMEOUT,
  );
});
