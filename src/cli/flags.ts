import * as defaults from '../server/defaults.js';
import { OPTION_RANGES } from '../server/option_ranges.js';
import { STUN_ANSWER_RATE } from '../stun/defaults.js';
import { type FlagTable, MAX_INT } from './flag_set.js';

/** Every flag of `derplane`: derper's first, then ours. */
export const FLAGS = {
  dev: {
    type: 'bool',
    default: false,
    help: 'development mode: plain HTTP on 127.0.0.1:3340, overriding -a, with a new key at each start',
  },
  version: { type: 'bool', default: false, help: 'print the version and exit' },
  a: {
    type: 'string',
    default: ':443',
    help: 'listen `address`: ":port", "ip:port" or "[ip]:port"; the port may be a name ("https"). Without an IP, and with "0.0.0.0" or "[::]", it listens on all interfaces, IPv4 and IPv6. "fd:" or "fd:NAME": the sockets that systemd passes, all or those of that name. HTTPS if the port is 443 or -certmode is manual, else plain HTTP',
  },
  'http-port': {
    type: 'int',
    default: 80,
    max: 65_535,
    help: 'port of plain HTTP beside HTTPS, for the captive portal check, ACME validation and redirects to HTTPS; -1 turns it off',
  },
  stun: {
    type: 'bool',
    default: true,
    help: 'serve STUN over UDP, on the IP of -a; also with -derp=false',
  },
  'stun-port': {
    type: 'int',
    default: 3478,
    min: 0,
    max: 65_535,
    help: 'UDP port of STUN',
  },
  c: {
    type: 'string',
    default: '',
    help: 'key `file`, created if missing; required unless -dev is given or derplane runs as root (default for root: /var/lib/derper/derper.key)',
  },
  certmode: {
    type: 'string',
    default: 'letsencrypt',
    help: 'source of certificates. manual: HTTPS on any port, with HOST.crt and HOST.key for -hostname in -certdir, reloaded when they change; for an IP address derplane creates a self-signed pair. letsencrypt or gcp: issued and renewed through ACME, on port 443 only',
  },
  certdir: {
    type: 'string',
    default: '',
    help: "`folder` of certificates; if not given, tailscale/derper-certs in the user's cache folder",
  },
  cert: {
    type: 'string',
    default: '',
    help: '`file` of the certificate of -hostname and its intermediates, with -key in place of the files in -certdir; implies -certmode manual',
  },
  key: { type: 'string', default: '', help: '`file` of the private key of -cert' },
  sni: {
    type: 'string',
    default: 'match',
    choices: ['match', 'any'],
    help: 'which clients TLS accepts when -hostname is a DNS name: match (clients that ask for that name) or any (also clients that ask for another name or none)',
  },
  hostname: {
    type: 'string',
    default: 'derp.tailscale.com',
    help: 'TLS `name` or IP address. Clients must ask for the name (SNI), or the handshake fails. Case, a trailing dot and the form of an international name do not matter',
  },
  'acme-eab-kid': { type: 'string', default: '', help: 'ACME account binding, for -certmode gcp: key `id`' },
  'acme-eab-key': {
    type: 'string',
    default: '',
    help: 'ACME account binding, for -certmode gcp: `key`, base64url, or base64 with padding',
  },
  'acme-email': { type: 'string', default: '', help: 'ACME account: email `address`; required with -certmode gcp' },
  'acme-ip-certs': {
    type: 'bool',
    default: false,
    help: 'with -certmode letsencrypt: short-lived certificates for the IP addresses that clients connect to',
  },
  derp: { type: 'bool', default: true, help: 'serve DERP; if false, serve only the other endpoints' },
  home: {
    type: 'string',
    default: '',
    help: 'what is served at /: empty for the default page, "blank", an http(s) `URL` to redirect to, or "none": close the connection without an answer, also after malformed and unknown requests',
  },
  'mesh-psk-file': {
    type: 'string',
    default: '',
    help: '`file` of the mesh key, 64 hexadecimal digits; if not given, the first existing file of /home/derp/keys/derp-mesh.key and $HOME/keys/derp-mesh.key',
  },
  'mesh-with': {
    type: 'string',
    default: '',
    help: 'relays to mesh with, `hosts` separated by commas without spaces: [https://]HOST[:PORT][/DIALHOST][/derp], dialled over TLS, or with http:// over plain TCP; the list may contain this relay itself. [HOST/]dns:NAME[:PORT] links to every address of the DNS name NAME and follows its records; certificates must be for HOST (default: -hostname)',
  },
  'secrets-url': {
    type: 'string',
    default: '',
    help: '`URL` of a setec server that has the mesh key, in place of -mesh-psk-file. derplane asks it once, with retries, before the relay listens',
  },
  'secrets-path-prefix': {
    type: 'string',
    default: 'prod/derp',
    help: "prefix of the secret's name at -secrets-url: the mesh key is PREFIX/meshkey",
  },
  'secrets-cache-dir': {
    type: 'string',
    default: '',
    help: 'cache `file` for the answer of -secrets-url; a key in the cache is used without asking the server. If not given, $HOME/.cache/derper-secrets',
  },
  'bootstrap-dns-names': {
    type: 'string',
    default: '',
    help: 'DNS `names` whose addresses /bootstrap-dns answers, separated by commas without spaces',
  },
  'unpublished-bootstrap-dns-names': {
    type: 'string',
    default: '',
    help: 'DNS `names` whose addresses /bootstrap-dns answers only to clients that ask for the name, separated by commas without spaces; NAME/RECORD answers only the percentage of clients (0 to 100) that the TXT record RECORD holds',
  },
  'verify-clients': {
    type: 'bool',
    default: false,
    help: 'admit only nodes that the local tailscaled knows; if several admission flags are set, all must agree',
  },
  socket: {
    type: 'string',
    default: '',
    help: "`path` of tailscaled's socket, for -verify-clients; if not given, /var/run/tailscale/tailscaled.sock",
  },
  'verify-client-url': {
    type: 'string',
    default: '',
    help: 'admit only clients that this `URL` allows: POST {"NodePublic":"nodekey:...","Source":"IP"}, answer {"Allow":true}',
  },
  'verify-client-url-fail-open': {
    type: 'bool',
    default: true,
    help: 'admit clients while -verify-client-url is unreachable',
  },
  'disallow-app-names': {
    type: 'string',
    default: '',
    help: 'refuse clients that report one of these program `names`, separated by commas without spaces; an empty name ("a,") stands for clients that report none',
  },
  'accept-connection-limit': {
    type: 'float',
    default: Infinity,
    help: 'connections that all listeners accept per second; others are closed. Needs -accept-connection-burst',
  },
  'accept-connection-burst': {
    type: 'int',
    default: MAX_INT,
    help: 'connections accepted at once under -accept-connection-limit, which limits nothing without it',
  },
  'rate-config': {
    type: 'string',
    default: '',
    help: 'JSON `file` with the send limit of each client, reloaded on SIGHUP: {"PerClientRateLimitBytesPerSec":N,"PerClientRateBurstBytes":N}',
  },
  'tcp-keepalive-time': {
    type: 'duration',
    default: defaults.TCP_KEEPALIVE_TIME,
    ...OPTION_RANGES.tcpKeepaliveTime,
    help: 'idle time of a connection before TCP keepalive probes',
  },
  'tcp-user-timeout': {
    type: 'duration',
    default: defaults.TCP_USER_TIMEOUT,
    ...OPTION_RANGES.tcpUserTimeout,
    help: 'TCP_USER_TIMEOUT of connections',
  },
  'tcp-write-timeout': {
    type: 'duration',
    default: defaults.WRITE_TIMEOUT,
    ...OPTION_RANGES['timeouts.write'],
    help: "how long a client's socket may accept no output before the connection is closed; 0: no limit",
  },
  ace: {
    type: 'bool',
    default: false,
    help: "derper's experimental CONNECT service, which derplane does not support; derplane logs a warning",
  },

  shards: {
    type: 'int',
    default: 0,
    ...OPTION_RANGES.shards,
    orZero: true,
    help: 'threads that move packets; 0: one per CPU, within the CPU affinity, the CPU quota, -ring-bytes and the memory limit',
  },
  'handshake-threads': {
    type: 'int',
    default: 0,
    ...OPTION_RANGES['handshake.threads'],
    orZero: true,
    help: 'threads for handshakes; 0: one per four of these CPUs, at least 1 and at most 8',
  },
  'handshakes-per-source': {
    type: 'int',
    default: 0,
    ...OPTION_RANGES['handshake.maxPendingPerSource'],
    orZero: true,
    help: `connections in handshake of one source (an IPv4 address, an IPv6 /64) before its newcomers replace its own silent ones; 0 for ${Math.floor(defaults.MAX_HANDSHAKES * defaults.SOURCE_SHARE)}`,
  },
  'ring-bytes': {
    type: 'int',
    default: defaults.RING_BYTES,
    ...OPTION_RANGES['queues.ringBytes'],
    help: 'total memory of the rings between shards, in `bytes`; each ring has at least 256 KiB, so 64 MiB is enough for 16 shards',
  },
  'queue-depth': {
    type: 'int',
    default: defaults.QUEUE_DEPTH,
    ...OPTION_RANGES['queues.depth'],
    help: "packets that each of a client's two send queues holds, not counting the kernel's buffer; also set by TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH",
  },
  'stun-addr': {
    type: 'string',
    default: '',
    help: 'listen `address` of STUN in place of the IP of -a and -stun-port: an IP, "ip:port", "[ip]:port" or ":port"',
  },
  'stun-rate': {
    type: 'int',
    default: STUN_ANSWER_RATE,
    ...OPTION_RANGES.answersPerSecond,
    help: 'STUN answers a second that one source gets, an IPv4 /24 or IPv6 /48; 0 for no bound',
  },
  'http-addr': {
    type: 'string',
    default: '',
    help: 'listen `address` of plain HTTP beside HTTPS, in place of the IP of -a and -http-port; or "fd:NAME", a socket that systemd passes',
  },
  'metrics-addr': {
    type: 'string',
    default: '',
    help: 'listen `address` for metrics and debug pages over plain HTTP, in addition to /debug/. With an IP, anyone who can connect has access; without one (":port", "0.0.0.0:port"), only loopback and Tailscale addresses',
  },
  'debug-pages': {
    type: 'bool',
    default: true,
    help: 'serve the pages below /debug/ on the public listeners too; if false, only -metrics-addr serves them',
  },
  'trust-proxy': {
    type: 'string',
    default: '',
    help: "proxies that may tell the client's address, `CIDRs` separated by commas: by a PROXY header (version 1 or 2) on any listener, X-Forwarded-For or X-Real-IP",
  },
  'allow-keys': {
    type: 'string',
    default: '',
    help: '`file` of admitted keys, reloaded when it changes and on SIGHUP: lines "nodekey:HEX [label=NAME] [rate=BYTES/S]", "#" starts a comment',
  },
  'verify-cache': {
    type: 'duration',
    default: 0,
    ...OPTION_RANGES['admission.urlCache'],
    help: 'how long to cache an answer of -verify-client-url that admits a key from an address; 0: ask at each connect',
  },
  'drain-time': {
    type: 'duration',
    default: 1_500,
    ...OPTION_RANGES.drainTime,
    help: 'time over which clients are disconnected one after another on SIGTERM or SIGINT; 0: all at once',
  },
  'acme-directory': {
    type: 'string',
    default: '',
    help: "`URL` of another ACME authority's directory, for -certmode letsencrypt and gcp",
  },
  'mesh-insecure-http': {
    type: 'bool',
    default: false,
    help: 'allow http:// hosts off loopback in -mesh-with; anyone who controls the network in between can then learn the mesh key',
  },
  'mesh-dns-interval': {
    type: 'duration',
    default: defaults.MESH_DNS_INTERVAL,
    ...OPTION_RANGES['mesh.dnsInterval'],
    help: 'interval between DNS lookups of a dns: entry of -mesh-with',
  },
  'log-format': {
    type: 'string',
    default: 'text',
    choices: ['text', 'json'],
    help: 'format of log lines: text or json',
  },
  'log-level': {
    type: 'string',
    default: 'info',
    choices: ['debug', 'info', 'warn', 'error'],
    help: 'minimum log level: debug, info, warn or error',
  },
} as const satisfies FlagTable;

/** Planned commands that derplane does not have yet. */
export const PENDING_COMMANDS = ['doctor', 'top'];
