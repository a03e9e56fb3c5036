/** Tailscale's own client over TLS, which knows the relay from a DERP map; and, to check the checks, against Tailscale's own relay. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatPin } from '../../dist/tls/pin.js';
import { makeCertificate } from '../support/certificates.js';
import { startDerplane } from '../support/derplane.js';
import { GO_DERPER_TIMEOUT, startGoDerper } from '../support/go_derper.js';
import { BUILD_TIMEOUT, buildDerpinterop, goMissing, runCheck } from './derpinterop.js';

const NAME = 'relay.test';
const IP = '127.0.0.1';

interface TlsRelay {
  /** `https://127.0.0.1:PORT/derp`. */
  url: string;
  /** What it wrote so far. */
  output(): string;
  close(): Promise<void>;
}

async function startOurs(args: string[], folder: string): Promise<TlsRelay> {
  const flags = ['-a', `${IP}:0`, '-http-port', '-1', '-stun=false', '-c', join(folder, 'key'), ...args];
  const relay = await startDerplane(flags);
  return {
    url: `https://${IP}:${relay.port}/derp`,
    output: () => relay.stdout() + relay.stderr(),
    close: async () => {
      relay.kill('SIGKILL');
      await relay.ended;
    },
  };
}

async function startGo(args: string[]): Promise<TlsRelay> {
  const relay = await startGoDerper({ args });
  return { url: `https://${IP}:${relay.port}/derp`, output: () => relay.log(), close: () => relay.close() };
}

describe.skipIf(goMissing !== undefined)('the Go client with a DERP map', () => {
  let folder: string;
  let trust: string;
  let pin: string;
  beforeAll(async () => {
    await buildDerpinterop();
    folder = await mkdtemp(join(tmpdir(), 'derplane-go-tls-'));
    trust = join(folder, 'certs', `${NAME}.crt`);
    const { cert, keyPem, der } = await makeCertificate({ names: [NAME] });
    pin = formatPin(der);
    await mkdir(join(folder, 'certs'));
    await writeFile(trust, cert);
    await writeFile(join(folder, 'certs', `${NAME}.key`), keyPem, { mode: 0o600 });
  }, BUILD_TIMEOUT);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  describe.each([
    ['derplane', startOurs],
    ["Tailscale's own relay", startGo],
  ])('on %s', (_, start) => {
    const startNamed = (hostname: string) =>
      start(['-certmode', 'manual', '-certdir', join(folder, 'certs'), '-hostname', hostname], folder);

    describe('whose certificate has a name', () => {
      let relay: TlsRelay;
      beforeAll(async () => {
        relay = await startNamed(NAME);
      }, GO_DERPER_TIMEOUT);
      afterAll(() => relay?.close());

      const check = (hostName: string, certName?: string) =>
        runCheck('derpmap', { url: relay.url, hostName, trust, ...(certName !== undefined && { certName }) });

      it('verifies the host name', () => check(NAME));

      it('verifies CertName', () => check(NAME, NAME));

      it('verifies the pin of a self-signed one', () => check(NAME, pin));

      it('refuses a certificate that has not the CertName', () =>
        expect(check(NAME, 'other.test')).rejects.toThrow(/certificate is valid for relay\.test, not other\.test/));

      it('is refused with another host name', () =>
        expect(check('other.test', NAME)).rejects.toThrow(/remote error: tls: /));
    });

    describe('that made its certificate for an IP address', () => {
      let relay: TlsRelay;
      let pin: string;
      beforeAll(async () => {
        relay = await startNamed(IP);
        pin = relay.output().match(/"CertName":"(sha256-raw:[0-9a-f]{64})"/)![1]!;
      }, GO_DERPER_TIMEOUT);
      afterAll(() => relay?.close());

      it('verifies the pin that the relay printed', () =>
        runCheck('derpmap', { url: relay.url, hostName: IP, certName: pin }));

      it('refuses a certificate that is not the pinned one', () => {
        const other = `sha256-raw:${'0'.repeat(64)}`;
        const check = runCheck('derpmap', { url: relay.url, hostName: IP, certName: other });
        return expect(check).rejects.toThrow('cert hash does not match expected cert hash');
      });

      it('verifies a CertName other than the host name', async () => {
        const certificate = join(folder, 'certs', `${IP}.crt`);
        await runCheck('derpmap', { url: relay.url, hostName: 'front.test', certName: IP, trust: certificate });
      });
    });
  });
});
