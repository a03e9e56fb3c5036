/** What stands in for the relay's TLS: it keeps certificates, and checks them as Node's TLS does. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type ConnectionOptions, connect, createSecureContext, createServer, type TLSSocket } from 'node:tls';
import type { Certificate, CertificateSink } from '../../dist/certificates/certificate_sink.js';
import { DerpError } from '../../dist/errors.js';

export class FakeSink implements CertificateSink {
  readonly served = new Map<string, Certificate[]>();
  /** Every set() that passed. */
  sets = 0;
  /** Refuses everything while it is true. */
  refusing = false;
  readonly #waiting = new Set<() => void>();

  set(name: string, certificates: Certificate[]): void {
    if (this.refusing) throw new DerpError('ERR_DERP_CERTIFICATE', 'refused by the sink');
    for (const { cert, key } of certificates) createSecureContext({ cert, key });
    this.served.set(name, certificates);
    this.sets++;
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** Resolves once `name` is served with `cert` first. */
  async serving(name: string, cert: string): Promise<void> {
    while (this.served.get(name)?.[0]?.cert.startsWith(cert) !== true) {
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  delete(name: string): void {
    this.served.delete(name);
  }

  setChallenge(): void {}
  deleteChallenge(): void {}
  expect(): void {}
  unexpect(): void {}
}

/** Does a TLS handshake with `certificate`; the client's socket then tells what it got. Rejects when the client refuses it. */
export async function handshake(certificate: Certificate, options: ConnectionOptions): Promise<Buffer[]> {
  const server = createServer({ cert: certificate.cert, key: certificate.key });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // A client that refuses the certificate resets the connection.
  server.on('tlsClientError', () => {});
  server.on('secureConnection', (socket) => socket.on('error', () => {}));
  const client: TLSSocket = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port, ...options });
  try {
    await once(client, 'secureConnect');
    const chain: Buffer[] = [];
    for (let peer = client.getPeerCertificate(true); peer?.raw !== undefined; peer = peer.issuerCertificate) {
      if (chain.some((raw) => raw.equals(peer.raw))) break;
      chain.push(peer.raw);
    }
    return chain;
  } finally {
    client.destroy();
    server.close();
  }
}
