/** The relay's TLS: its certificates, and what answers handshakes with them. */
import { type DerpNode, derpNodeHint, headscaleDerpMap, tailscaleDerpMap } from '../certificates/derp_map.js';
import { type CertificateConfig, type CertificateSource, certificateSource } from '../certificates/source.js';
import { canonicalHost } from '../host_name.js';
import type { Logger } from '../log.js';
import { TlsContext } from '../tls/tls_context.js';

export interface RelayTls {
  /** For {@link Server.listen}. */
  context: TlsContext;
  source: CertificateSource;
}

/**
 * Opens the certificates and prints, of an IP address, the line for the DERP map: raw, as the reference does, that scripts may find it.
 *
 * @throws {@link DerpError} as {@link certificateSource}
 */
export async function openTls(config: CertificateConfig, logger: Logger): Promise<RelayTls> {
  let source: CertificateSource | undefined;
  const context = new TlsContext({ onWanted: (name) => source?.wanted?.(name) });
  source = await certificateSource(config, context, logger);
  if (source.pin !== undefined) {
    logger.info({}, `Using self-signed certificate for IP address "${config.hostname}"; the DERP map needs this node:`);
    process.stderr.write(
      `${derpNodeHint({ ip: canonicalHost(config.hostname) ?? config.hostname, pin: source.pin })}\n`,
    );
  }
  return { context, source };
}

/** Prints ready maps for the two control servers. */
export function printDerpMaps(node: DerpNode): void {
  console.log(`
DERP map for Tailscale's policy file (Access controls):

${tailscaleDerpMap(node)}

DERP map for headscale, as a file of its own named in derp.paths:

${headscaleDerpMap(node)}`);
}
