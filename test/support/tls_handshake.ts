import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type ConnectionOptions, connect, createServer, type TLSSocket } from 'node:tls';
import type { CertificateText } from '../../dist/tls/tls_context.js';

/** Does a TLS handshake with `certificate`; the client's socket then tells what it got. Rejects when the client refuses it. */
export async function handshake(certificate: CertificateText, options: ConnectionOptions): Promise<Buffer[]> {
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
