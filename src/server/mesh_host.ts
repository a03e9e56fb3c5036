/** Where other relays of the region are. */
import { badOption } from '../checks.js';
import { isOnLoopback, parseRelayAddress, type RelayAddress } from '../client/relay_address.js';
import { addressOf, canonicalHost } from '../host_name.js';

/** A DNS name, each of whose addresses is a relay. */
export interface MeshName {
  /** What log lines call it: the entry as it was written. */
  readonly name: string;
  readonly dnsName: string;
  readonly port: number;
  readonly scheme: 'https' | 'http';
  /** The name or IP address that the relays' certificates must be for; undefined without TLS. */
  readonly certificateName: string | undefined;
}

export interface MeshEntryOptions {
  /** Whether a relay dialled without TLS may be elsewhere than on this machine's loopback. */
  insecureHttp: boolean;
  /** The certificate name of entries `dns:` that name none. */
  hostname: string | undefined;
}

/** Ports of relays where an entry names none. */
const DEFAULT_PORTS = { https: 443, http: 80 };
const DNS_FORM = '[HOST/]dns:NAME[:PORT]';

/**
 * Reads one entry of `-mesh-with`: a relay's address, or `[HOST/]dns:NAME[:PORT]`.
 *
 * @throws DerpError `ERR_DERP_BAD_OPTION` naming the part that is wrong
 */
export function parseMeshEntry(entry: string, options: MeshEntryOptions): RelayAddress | MeshName {
  const [, scheme, host, name] = /^(?:(https?):\/\/)?(?:([^/]*)\/)?dns:(.*)$/.exec(entry) ?? [];
  if (name === undefined) return parseMeshHost(entry, options.insecureHttp);
  return parseMeshName(entry, scheme === 'http' ? 'http' : 'https', host, name, options);
}

export function isMeshName(entry: RelayAddress | MeshName): entry is MeshName {
  return 'dnsName' in entry;
}

/**
 * Reads the address of a relay to link with.
 * @param allowPlain - whether a relay dialled without TLS may be elsewhere than on this machine's loopback
 * @throws DerpError `ERR_DERP_BAD_OPTION` naming the part that is wrong
 */
export function parseMeshHost(entry: string, allowPlain: boolean): RelayAddress {
  const host = parseRelayAddress(entry, 'mesh host');
  if (host.url.protocol === 'https:' || allowPlain || isOnLoopback(host)) return host;
  throw needsInsecureHttp(entry, 'off loopback');
}

function parseMeshName(
  entry: string,
  scheme: MeshName['scheme'],
  host: string | undefined,
  target: string,
  { insecureHttp, hostname }: MeshEntryOptions,
): MeshName {
  const bad = (reason: string) => badOption(`mesh host ${JSON.stringify(entry)}: ${reason}`);
  if (/[\s\p{Cc}]/u.test(entry)) throw bad('has a space or control character; entries are not trimmed');
  const [, name = '', portText] = /^([^:]*)(?::(.*))?$/.exec(target) ?? [];
  const port = portText === undefined ? DEFAULT_PORTS[scheme] : Number(portText);
  if (portText !== undefined && !(/^\d{1,5}$/.test(portText) && port >= 1 && port <= 65_535)) {
    throw bad(`port ${JSON.stringify(portText)}: must be an integer from 1 to 65535`);
  }
  const dnsName = canonicalHost(name);
  if (dnsName === undefined || addressOf(name) !== undefined) {
    throw bad(`${JSON.stringify(name)}: must be a DNS name, needs ${DNS_FORM}`);
  }
  if (scheme === 'http') {
    if (host !== undefined) throw bad(`${JSON.stringify(host)} is the name of a certificate, and http:// has none`);
    if (!insecureHttp) throw needsInsecureHttp(entry, 'with dns:');
    return { name: entry, dnsName, port, scheme, certificateName: undefined };
  }
  const certificateName = canonicalHost(host ?? hostname ?? '');
  if (certificateName === undefined) {
    throw host === undefined
      ? bad('which name are the certificates for? Give HOST/dns:NAME, or -hostname (option mesh.hostname)')
      : bad(`host ${JSON.stringify(host)}: must be a DNS name or an IP address, needs ${DNS_FORM}`);
  }
  return { name: entry, dnsName, port, scheme, certificateName };
}

function needsInsecureHttp(entry: string, where: string): Error {
  return badOption(
    `mesh host ${JSON.stringify(entry)}: without TLS, anyone who controls the network in between can learn the mesh key; ${where} this needs -mesh-insecure-http (option mesh.insecureHttp)`,
  );
}
