/** Turns flags and environment variables into the relay's configuration. */
import { isAbsolute, join, posix } from 'node:path';
import type { ServerAdmissionOptions } from '../admission/options.js';
import { DEFAULT_SOCKET } from '../admission/tailscaled.js';
import type { PairFiles } from '../certificates/key_pair.js';
import type { CertificateConfig, CertificateMode } from '../certificates/source.js';
import { envBoolean } from '../env_boolean.js';
import { canonicalHost } from '../host_name.js';
import { isHttpUrl } from '../http_client.js';
import { canonicalAddress } from '../ip_address.js';
import { checkRanges } from '../proxies.js';
import type { SecretSource } from '../secrets/mesh_secret.js';
import { parseMeshEntry } from '../server/mesh_host.js';
import type { ServerOptions } from '../server/options.js';
import { type Address, formatAddress, parseAddress } from './address.js';
import { StartError } from './exit.js';
import type { ParsedFlags } from './flag_set.js';
import { FLAGS } from './flags.js';
import { defaultMeshKeyFile, MESH_KEY_VARIABLE, type MeshKeySource } from './mesh_key.js';
import { chooseSockets, type InheritedSocket, isSocketName, socketNames } from './sockets.js';
import type { StunConfig } from './stun.js';

export interface TlsConfig {
  certificates: CertificateConfig;
  /** Listen address of plain HTTP beside HTTPS. */
  plainAddress: Address | undefined;
}

export interface RelayConfig {
  address: Address;
  /** Development mode: loopback only, and a key that is never saved. */
  dev: boolean;
  /** The key file; undefined with `dev`. */
  keyFile: string | undefined;
  derp: boolean;
  home: string;
  /** Whether the public listeners have the debug pages. */
  publicDebugPages: boolean;
  bootstrapDns: { names: string; unpublishedNames: string };
  /** Milliseconds. */
  tcpKeepaliveTime: number;
  /** Milliseconds. */
  tcpUserTimeout: number;
  /** Listen address of the separate listener for metrics and debug pages. */
  metricsAddress: Address | undefined;
  /** Milliseconds over which clients are disconnected when the relay ends. */
  drainTime: number;
  meshKey: MeshKeySource | SecretSource | undefined;
  /** File of rate limits. */
  rateConfig: string | undefined;
  /** `-hostname`. */
  hostname: string;
  /** Undefined: plain HTTP is served. */
  tls: TlsConfig | undefined;
  /** Undefined: STUN is not served. */
  stun: StunConfig | undefined;
  server: ServerOptions;
  /** What the operator should know about the flags. */
  warnings: string[];
}

/** Turns off the measurement of round-trip times; derper's. */
const NO_RTT_VARIABLE = 'TS_DERP_DISABLE_RTT_STATS';

export type RelayFlags = ParsedFlags<typeof FLAGS>;

const DEV_ADDRESS: Address = { flag: '-dev', host: '127.0.0.1', port: 3340 };
const ROOT_KEY_FILE = '/var/lib/derper/derper.key';
const QUEUE_DEPTH_VARIABLE = 'TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH';

/** derper's words before what it says of certificates that it cannot serve. */
export const NO_CERTIFICATES = 'derper: can not start cert provider';

/** derper's words where `-mesh-with` is of no use. */
export const NO_MESH_KEY = 'startMesh: --mesh-with requires --mesh-psk-file';

/**
 * @param isRoot - whether root runs the program
 * @param sockets - that a service manager opened
 * @throws {@link StartError} when the flags are invalid or contradict each other
 */
export function relayConfig(
  flags: RelayFlags,
  env: NodeJS.ProcessEnv,
  isRoot: boolean,
  sockets: readonly InheritedSocket[] = [],
): RelayConfig {
  const { values } = flags;
  const address = values.dev ? DEV_ADDRESS : addressFlag(flags, 'a', sockets);
  const meshKey = meshKeySource(flags, env);
  return {
    address,
    hostname: values.hostname,
    tls: tlsConfig(flags, env, address, sockets),
    dev: values.dev,
    keyFile: values.dev ? undefined : keyFile(values.c, isRoot),
    derp: values.derp,
    home: values.home,
    publicDebugPages: values['debug-pages'],
    bootstrapDns: {
      names: values['bootstrap-dns-names'],
      unpublishedNames: values['unpublished-bootstrap-dns-names'],
    },
    tcpKeepaliveTime: values['tcp-keepalive-time'],
    tcpUserTimeout: values['tcp-user-timeout'],
    drainTime: values['drain-time'],
    meshKey,
    rateConfig: values['rate-config'] === '' ? undefined : values['rate-config'],
    metricsAddress: values['metrics-addr'] === '' ? undefined : addressFlag(flags, 'metrics-addr', sockets),
    stun: stunConfig(flags, address, sockets),
    server: {
      ...(values.shards > 0 && { shards: values.shards }),
      trustProxy: trustProxy(values['trust-proxy']),
      acceptLimit: acceptLimit(flags),
      logClients: values['log-level'] === 'debug',
      mesh: {
        with: meshWith(flags, meshKey),
        insecureHttp: values['mesh-insecure-http'],
        hostname: values.hostname,
        dnsInterval: values['mesh-dns-interval'],
      },
      admission: admissionOptions(flags),
      handshake: {
        ...(values['handshake-threads'] > 0 && { threads: values['handshake-threads'] }),
        ...(values['handshakes-per-source'] > 0 && { maxPendingPerSource: values['handshakes-per-source'] }),
      },
      timeouts: { write: values['tcp-write-timeout'], ...(envBoolean(env, NO_RTT_VARIABLE) && { rttInterval: 0 }) },
      queues: { depth: queueDepth(flags, env), ringBytes: values['ring-bytes'] },
    },
    warnings: warnings(flags, address),
  };
}

/** Flags that name a place to listen, or inherited sockets. */
const ADDRESS_FLAGS = ['a', 'http-addr', 'metrics-addr', 'stun-addr'] as const;

function addressFlag(
  { values }: RelayFlags,
  name: (typeof ADDRESS_FLAGS)[number],
  sockets: readonly InheritedSocket[],
): Address {
  const [flag, text] = [`-${name}`, values[name]];
  if (!isSocketName(text)) return parseAddress(flag, text);
  const others = ADDRESS_FLAGS.filter((other) => other !== name).map((other) => values[other]);
  const kind = name === 'stun-addr' ? 'udp' : 'tcp';
  return chooseSockets({ flag, text, kind, taken: socketNames(others), several: name === 'a' }, sockets);
}

/** Beside HTTPS; on the IP of `-a` unless a flag names another address. */
function plainAddress(flags: RelayFlags, { host }: Address, sockets: readonly InheritedSocket[]): Address | undefined {
  if (flags.values['http-addr'] !== '') return addressFlag(flags, 'http-addr', sockets);
  const port = flags.values['http-port'];
  return port < 0 ? undefined : { flag: '-http-port', host, port };
}

/** HTTPS is served on port 443 and, as in derper, on any port with manual certificates. */
function tlsConfig(
  flags: RelayFlags,
  env: NodeJS.ProcessEnv,
  address: Address,
  sockets: readonly InheritedSocket[],
): TlsConfig | undefined {
  const { values, given } = flags;
  const files = certificateFiles(flags);
  const certmode = files !== undefined && !given.has('certmode') ? 'manual' : values.certmode;
  if (address.port !== 443 && certmode !== 'manual') return undefined;
  const plain = plainAddress(flags, address, sockets);
  return {
    certificates: {
      mode: certificateMode(certmode, values['acme-ip-certs']),
      folder: files ? '' : certificateFolder(given.has('certdir') ? values.certdir : defaultCertificateFolder(env)),
      ...(files && { files }),
      ...(values.sni === 'any' && { anyName: true }),
      hostname: certificateHost(values.hostname),
      acme: acmeConfig(values, plain !== undefined),
    },
    plainAddress: plain,
  };
}

/** Both or none. */
function certificateFiles({ values, given }: RelayFlags): PairFiles | undefined {
  const { cert, key, certmode } = values;
  if (cert === '' && key === '') return undefined;
  if (cert === '') throw new StartError(`-key ${key}: needs -cert FILE too`);
  if (key === '') throw new StartError(`-cert ${cert}: needs -key FILE too`);
  if (given.has('certmode') && certmode !== 'manual') {
    throw new StartError(`-cert ${cert}: needs -certmode manual, and -certmode is ${certmode}`);
  }
  return { cert, key };
}

function trustProxy(list: string): string[] {
  if (list === '') return [];
  const ranges = list.split(',').map((range) => range.trim());
  try {
    checkRanges(ranges, '-trust-proxy');
  } catch (error) {
    throw new StartError((error as Error).message, { cause: error });
  }
  return ranges;
}

/** A limit without a burst never limits, as derper's. */
function acceptLimit({ values, given }: RelayFlags): { perSecond: number; burst: number } {
  const { 'accept-connection-limit': perSecond, 'accept-connection-burst': burst } = values;
  if (!(perSecond >= 0)) throw new StartError(`-accept-connection-limit ${perSecond}: must be a number from 0 on`);
  if (burst < 0) throw new StartError(`-accept-connection-burst ${burst}: must be an integer from 0 on`);
  return { perSecond, burst: given.has('accept-connection-burst') ? burst : Number.POSITIVE_INFINITY };
}

function certificateMode(certmode: string, ipCertificates: boolean): CertificateMode {
  if (certmode !== 'manual' && certmode !== 'letsencrypt' && certmode !== 'gcp') {
    throw new StartError(
      `${NO_CERTIFICATES}: unsupport cert mode: ${JSON.stringify(certmode)}; -certmode takes manual, letsencrypt or gcp`,
    );
  }
  if (ipCertificates && certmode !== 'letsencrypt') {
    throw new StartError('--acme-ip-certs requires --certmode=letsencrypt');
  }
  return certmode;
}

function acmeConfig(values: RelayFlags['values'], httpChallenge: boolean): CertificateConfig['acme'] {
  return {
    directory: values['acme-directory'],
    email: values['acme-email'],
    eab: { kid: values['acme-eab-kid'], key: values['acme-eab-key'] },
    ipCertificates: values['acme-ip-certs'],
    httpChallenge,
  };
}

function certificateFolder(folder: string): string {
  if (folder !== '') return folder;
  throw new StartError(`${NO_CERTIFICATES}: missing required --certdir flag: the folder of certificates`);
}

function certificateHost(hostname: string): string {
  if (canonicalHost(hostname) !== undefined) return hostname;
  throw new StartError(
    `-hostname ${JSON.stringify(hostname)}: not a DNS name or IP address; TLS needs the one by which clients know the relay`,
  );
}

/** In the user's cache folder, by Go's rule; empty if the environment names no folder. */
function defaultCertificateFolder({ XDG_CACHE_HOME: cache = '', HOME: home = '' }: NodeJS.ProcessEnv): string {
  const folder = cache !== '' ? cache : home === '' ? '' : join(home, '.cache');
  return isAbsolute(folder) ? join(folder, 'tailscale', 'derper-certs') : '';
}

function keyFile(c: string, isRoot: boolean): string {
  if (c !== '') return c;
  if (isRoot) return ROOT_KEY_FILE;
  throw new StartError(
    'derper: -c <config path> not specified: only root has a default key file; give -c FILE, or -dev to try derplane',
  );
}

/** With -dev the variable alone counts; else the secret server, else the flag, else the file at its usual place. */
function meshKeySource(
  { values, given }: RelayFlags,
  env: NodeJS.ProcessEnv,
): MeshKeySource | SecretSource | undefined {
  if (values.dev) {
    const text = env[MESH_KEY_VARIABLE] ?? '';
    return text === '' ? undefined : { variable: MESH_KEY_VARIABLE, text };
  }
  if (values['secrets-url'] !== '') return secretSource(values, env);
  const file = given.has('mesh-psk-file') ? values['mesh-psk-file'] : (defaultMeshKeyFile(env.HOME) ?? '');
  return file === '' ? undefined : { file };
}

function secretSource(values: RelayFlags['values'], { HOME: home = '' }: NodeJS.ProcessEnv): SecretSource {
  const url = values['secrets-url'];
  if (!isHttpUrl(url)) throw new StartError('-secrets-url: must be an http:// or https:// URL');
  return {
    secretsUrl: url,
    secret: posix.join(values['secrets-path-prefix'], 'meshkey'),
    cacheFile: values['secrets-cache-dir'] || join(home, '.cache', 'derper-secrets'),
  };
}

/** On the IP of `-a` unless the flags name another address. */
function stunConfig(flags: RelayFlags, listen: Address, sockets: readonly InheritedSocket[]): StunConfig | undefined {
  const { values, given } = flags;
  if (!values.stun) return undefined;
  const answersPerSecond = values['stun-rate'];
  const text = values['stun-addr'];
  if (text === '')
    return { address: { flag: '-stun-port', host: listen.host, port: values['stun-port'] }, answersPerSecond };
  const ip = canonicalAddress(text.replace(/^\[(.*)\]$/, '$1'));
  const address =
    ip === undefined
      ? addressFlag(flags, 'stun-addr', sockets)
      : { flag: '-stun-addr', host: ip, port: values['stun-port'] };
  if (ip === undefined && given.has('stun-port')) {
    throw new StartError(`-stun-addr ${JSON.stringify(text)} names a port, and so does -stun-port; give one of them`);
  }
  return { address, answersPerSecond };
}

/** The list, with every entry checked; without the key it must be empty. */
function meshWith({ values }: RelayFlags, meshKey: MeshKeySource | SecretSource | undefined): string[] {
  if (values['mesh-with'] === '') return [];
  const hosts = values['mesh-with'].split(',');
  if (meshKey === undefined) {
    const instead = values.dev ? ` (with -dev ${MESH_KEY_VARIABLE} instead)` : '';
    throw new StartError(`${NO_MESH_KEY}${instead}`);
  }
  try {
    const options = { insecureHttp: values['mesh-insecure-http'], hostname: values.hostname };
    for (const host of hosts) parseMeshEntry(host, options);
  } catch (error) {
    throw new StartError(`-mesh-with: ${(error as Error).message}`, { cause: error });
  }
  return hosts;
}

/** Who may use the relay: every check of a server except an embedder's hook. */
function admissionOptions({ values, given }: RelayFlags): ServerAdmissionOptions {
  const url = values['verify-client-url'];
  if (url !== '') {
    if (!isHttpUrl(url)) throw new StartError('-verify-client-url: must be an http:// or https:// URL');
  }
  return {
    ...(given.has('disallow-app-names') &&
      values['disallow-app-names'] !== '' && { disallowAppNames: values['disallow-app-names'].split(',') }),
    ...(values['allow-keys'] !== '' && { keyFile: values['allow-keys'] }),
    ...(values['verify-clients'] && { tailscaledSocket: values.socket || DEFAULT_SOCKET }),
    ...(url !== '' && { url, urlFailOpen: values['verify-client-url-fail-open'], urlCache: values['verify-cache'] }),
  };
}

/** The flag; without it derper's variable, where 0 and less mean the default. */
function queueDepth({ values, given }: RelayFlags, env: NodeJS.ProcessEnv): number {
  const text = env[QUEUE_DEPTH_VARIABLE];
  if (given.has('queue-depth') || text === undefined || text === '') return values['queue-depth'];
  const { default: fallback, max } = FLAGS['queue-depth'];
  if (!/^-?\d+$/.test(text) || Number(text) > max) {
    throw new StartError(
      `invalid integer environment variable ${QUEUE_DEPTH_VARIABLE}: ${JSON.stringify(text)} must be an integer of at most ${max}`,
    );
  }
  return Number(text) > 0 ? Number(text) : fallback;
}

/** Flags by which an operator says that the relay should serve TLS. */
const TLS_FLAGS = ['certmode', 'certdir', 'sni', 'hostname', 'acme-email', 'acme-ip-certs', 'acme-directory'];

function warnings({ values, given }: RelayFlags, address: Address): string[] {
  const found: string[] = [];
  const isPlain = address.port !== 443 && values.certmode !== 'manual' && values.cert === '' && !values.dev;
  if (isPlain && TLS_FLAGS.some((name) => given.has(name))) {
    found.push(
      `-certmode ${values.certmode} serves TLS on port 443 only, and this is plain HTTP on ${formatAddress(address)}: nodes need TLS; use "-a :443", "-certmode manual" or a proxy in front`,
    );
  }
  if (given.has('accept-connection-limit') && !given.has('accept-connection-burst')) {
    found.push('-accept-connection-limit limits nothing without -accept-connection-burst, as in derper');
  }
  if (!values.derp && values['mesh-with'] !== '') found.push('-mesh-with has no effect with -derp=false');
  if (!values['debug-pages'] && values['metrics-addr'] === '') {
    found.push('-debug-pages=false without -metrics-addr: metrics and debug pages are served nowhere');
  }
  if (values.ace) found.push("-ace: derper's experimental CONNECT service is not available");
  const isAsked = values['verify-clients'] || values['verify-client-url'] !== '' || values['allow-keys'] !== '';
  if (!values.derp && isAsked) found.push('admission of clients has no effect with -derp=false');
  return found;
}
