/** Where another relay of the region is. */
import { badOption } from '../checks.js';
import { isOnLoopback, parseRelayAddress, type RelayAddress } from '../client/relay_address.js';

/**
 * Reads the address of a relay to link with.
 * @param allowPlain - whether the relay dialled without TLS may be elsewhere than on this machine's loopback
 * @throws DerpError `ERR_DERP_BAD_OPTION` naming the part that is wrong
 */
export function parseMeshHost(entry: string, allowPlain: boolean): RelayAddress {
  const host = parseRelayAddress(entry, 'mesh host');
  if (host.url.protocol === 'https:' || allowPlain || isOnLoopback(host)) return host;
  throw badOption(
    `mesh host ${JSON.stringify(entry)}: without TLS whoever controls the network in between can learn the mesh key; off loopback this needs -mesh-insecure-http (option mesh.insecureHttp)`,
  );
}
