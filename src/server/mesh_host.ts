/** Where another relay of the region is, as an operator writes it. */
import { isIPv4, isIPv6 } from 'node:net';
import { DerpError } from '../errors.js';

export interface MeshHost {
  /** What log lines call it: the entry's host as it was written, port included. */
  readonly name: string;
  readonly url: URL;
  /** What is dialled instead of the URL's host, without port; `undefined`: the URL's host. */
  readonly dialHost: string | undefined;
}

const PLAIN = 'http://';
const SECURE = 'https://';

/**
 * Reads `HOST[:PORT][/DIALHOST]`: the relay is called HOST, which its certificate must be for, and found at DIALHOST, which has no port of
 * its own. With `http://` in front the link is plain.
 * @param allowPlain - whether the relay dialled may be elsewhere than on this machine's loopback
 * @throws DerpError `ERR_DERP_BAD_OPTION`
 */
export function parseMeshHost(entry: string, allowPlain: boolean): MeshHost {
  if (/\s/.test(entry)) throw bad(`mesh host ${JSON.stringify(entry)}: has a space; entries are not trimmed`);
  const plain = entry.startsWith(PLAIN);
  const tuple = plain ? entry.slice(PLAIN.length) : entry;
  const [name = '', dialHost, ...more] = tuple.split('/');
  if (more.length > 0) throw bad(`too many components in host tuple ${JSON.stringify(tuple)}`);
  if (name === '' || dialHost === '')
    throw bad(`mesh host ${JSON.stringify(entry)}: empty; write HOST[:PORT][/DIALHOST]`);
  const url = urlOf(entry, plain ? PLAIN : SECURE, name);
  if (dialHost !== undefined) checkDialHost(entry, dialHost);
  if (plain && !allowPlain && !isLoopback(dialHost ?? url.hostname)) {
    throw bad(
      `mesh host ${JSON.stringify(entry)}: without TLS whoever controls the network in between can learn the mesh key; off loopback this needs -mesh-insecure-http (option mesh.insecureHttp)`,
    );
  }
  return { name, url, dialHost };
}

function urlOf(entry: string, scheme: string, host: string): URL {
  const text = `${scheme}${host}/derp`;
  // What URL would take for something else than host and port.
  if (!/[@?#\\]/.test(host) && URL.canParse(text)) return new URL(text);
  throw bad(`mesh host ${JSON.stringify(entry)}: ${JSON.stringify(host)} is no HOST[:PORT]`);
}

function checkDialHost(entry: string, dialHost: string): void {
  if (isIPv6(dialHost)) return; // without brackets: there is no port to tell it from
  const { port } = urlOf(entry, SECURE, dialHost);
  if (port === '' && !/:\d*$/.test(dialHost.replace(/\[.*\]$/, ''))) return;
  throw bad(`mesh host ${JSON.stringify(entry)}: the port belongs to the name in front of the slash`);
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

function bad(message: string): DerpError {
  return new DerpError('ERR_DERP_BAD_OPTION', message);
}
