/** The relay's TLS: its certificates, and the TLS context that uses them. */
import { forAnyName } from '../certificates/any_name.js';
import { type DerpNode, derpNodeHint, headscaleDerpMap, tailscaleDerpMap } from '../certificates/derp_map.js';
import { type CertificateConfig, type CertificateSource, certificateSource } from '../certificates/source.js';
import { DerpError } from '../errors.js';
import { addressOf, canonicalHost } from '../host_name.js';
import { TlsContext } from '../tls/tls_context.js';
import { NO_CERTIFICATES } from './config.js';
import { StartError } from './exit.js';
import type { Log } from './logging.js';

export interface RelayTls {
  /** For {@link Server.listen}. */
  context: TlsContext;
  source: CertificateSource;
  /** Called when the certificate's pin, and so the entry in the DERP map, changes while the relay runs. Set by the caller. */
  onPinChange: () => void;
}

/**
 * Opens the certificates. For an IP address it also prints the line for the DERP map, raw as in derper, so that scripts find it.
 *
 * @throws {@link StartError} when the certificates cannot be served
 */
export async function openTls(config: CertificateConfig, log: Log): Promise<RelayTls> {
  let source: CertificateSource | undefined;
  const context = new TlsContext({ onWanted: (name) => source?.wanted?.(name) });
  const sink = config.anyName ? forAnyName(context, config.hostname) : context;
  const onPinChange = () => {
    printHint(config, tls.source, log);
    tls.onPinChange();
  };
  source = await certificateSource(config, sink, log.logger, onPinChange).catch(refuse);
  const tls: RelayTls = { context, source, onPinChange: () => undefined };
  printHint(config, source, log);
  return tls;
}

function refuse(error: unknown): never {
  if (!(error instanceof DerpError)) throw error;
  throw new StartError(`${NO_CERTIFICATES}: ${error.message}`, { cause: error });
}

/** Whether the DERP map is printed: clients know the relay by an IP address, and its certificate does not change every few days. */
export function isPrinted({ mode, hostname }: CertificateConfig): boolean {
  return mode === 'manual' && addressOf(hostname) !== undefined;
}

function printHint(config: CertificateConfig, { pin }: CertificateSource, { logger, writeLine }: Log): void {
  if (!isPrinted(config)) return;
  const ip = canonicalHost(config.hostname) ?? config.hostname;
  const how =
    pin === undefined
      ? `Using the certificate of an authority for IP address "${ip}", which nodes must trust`
      : `Using self-signed certificate for IP address "${ip}"`;
  logger.info({}, `${how}; the DERP map needs this node:`);
  writeLine(derpNodeHint({ ip, pin }));
}

/** Ready maps for the two control servers. */
export function derpMaps(node: DerpNode): string {
  return `
DERP map for Tailscale's policy file (Access controls):

${tailscaleDerpMap(node)}

DERP map for headscale, as a separate file listed in derp.paths:

${headscaleDerpMap(node)}
`;
}
