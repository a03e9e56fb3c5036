/** The relay's TLS: its certificates, and what answers handshakes with them. */
import type { CertificateSink } from '../certificates/certificate_sink.js';
import { type DerpNode, derpNodeHint, headscaleDerpMap, tailscaleDerpMap } from '../certificates/derp_map.js';
import { type CertificateConfig, type CertificateSource, certificateSource } from '../certificates/source.js';
import { DerpError } from '../errors.js';
import type { Logger } from '../log.js';
import type { PublicKey } from '../protocol/key.js';
import { makeMetaCertificate } from '../tls/meta_certificate.js';

export interface RelayTls {
  context: CertificateSink;
  source: CertificateSource;
}

/**
 * Opens the certificates and prints, of an IP address, the line for the DERP map: raw, as the reference does, that scripts may find it.
 *
 * @throws {@link DerpError} `ERR_DERP_CERTIFICATE` when there is no certificate
 */
export async function openTls(config: CertificateConfig, publicKey: PublicKey, logger: Logger): Promise<RelayTls> {
  const context = createContext(await makeMetaCertificate(publicKey), (name) => source?.wanted?.(name));
  let source: CertificateSource | undefined;
  source = await certificateSource(config, context, logger);
  if (source.pin !== undefined) {
    logger.info({}, `Using the certificate of IP address ${config.hostname}; the DERP map needs this node:`);
    process.stderr.write(`${derpNodeHint({ ip: config.hostname, pin: source.pin })}\n`);
  }
  return { context, source };
}

/** Makes what answers handshakes: the one place that knows the class. */
function createContext(_metaCertificate: Uint8Array, _onWanted: (name: string) => void): CertificateSink {
  return { set() {}, delete() {}, setChallenge() {}, deleteChallenge() {}, expect() {}, unexpect() {} };
}

/** What makes a listener one of HTTPS: options of {@link Server.listen}. */
export function tlsListenOptions(tls: RelayTls | undefined): object {
  if (tls === undefined) return {};
  throw new DerpError('ERR_DERP_BAD_OPTION', 'the relay does not serve TLS yet; give a plain port (-a 127.0.0.1:3340)');
}

/** Prints ready maps for the two control servers. */
export function printDerpMaps(node: DerpNode): void {
  console.log(`
DERP map for Tailscale's policy file (Access controls):

${tailscaleDerpMap(node)}

DERP map for headscale, as a file of its own named in derp.paths:

${headscaleDerpMap(node)}`);
}
