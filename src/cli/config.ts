/** From flags and environment to what the relay is started with. */
import type { ServerOptions } from '../server/options.js';
import { type Address, parseAddress } from './address.js';
import { StartError } from './exit.js';
import type { FlagTable, ParsedFlags } from './flag_set.js';
import { FLAGS } from './flags.js';

export interface RelayConfig {
  address: Address;
  /** Loopback, and a key that is never kept. */
  dev: boolean;
  /** Where the key is kept; with `dev` nowhere. */
  keyFile: string | undefined;
  derp: boolean;
  home: string;
  /** Milliseconds. */
  tcpKeepaliveTime: number;
  /** Milliseconds. */
  tcpUserTimeout: number;
  server: ServerOptions;
  /** What the operator should know about the flags. */
  warnings: string[];
}

export type RelayFlags = ParsedFlags<typeof FLAGS>;

const DEV_ADDRESS: Address = { host: '127.0.0.1', port: 3340 };
const ROOT_KEY_FILE = '/var/lib/derper/derper.key';
const QUEUE_DEPTH_VARIABLE = 'TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH';

/**
 * @param version - of derplane, for messages
 * @param isRoot - whether root runs the program
 * @throws {@link StartError} when the flags ask for what cannot be done
 */
export function relayConfig(flags: RelayFlags, env: NodeJS.ProcessEnv, version: string, isRoot: boolean): RelayConfig {
  const { values } = flags;
  refusePending(flags, version);
  const address = values.dev ? DEV_ADDRESS : parseAddress('-a', values.a);
  if (!values.dev) refuseTls(address, values.certmode, version);
  return {
    address,
    dev: values.dev,
    keyFile: values.dev ? undefined : keyFile(values.c, isRoot),
    derp: values.derp,
    home: values.home,
    tcpKeepaliveTime: values['tcp-keepalive-time'],
    tcpUserTimeout: values['tcp-user-timeout'],
    server: {
      ...(values.shards > 0 && { shards: values.shards }),
      ...(values['handshake-threads'] > 0 && { handshakeThreads: values['handshake-threads'] }),
      ringBytes: values['ring-bytes'],
      queueDepth: queueDepth(flags, env),
      writeTimeout: values['tcp-write-timeout'],
      logClients: values['log-level'] === 'debug',
    },
    warnings: warnings(flags),
  };
}

/** A flag that does nothing must not look as if it did: an operator may rely on it. */
function refusePending({ values }: RelayFlags, version: string): void {
  for (const [name, spec] of Object.entries(FLAGS as FlagTable)) {
    if (spec.pending === undefined || values[name as keyof typeof values] === spec.default) continue;
    throw new StartError(`-${name}: derplane ${version} has no ${spec.pending} yet; start without this flag`);
  }
}

function refuseTls(address: Address, certmode: string, version: string): void {
  const wanted =
    certmode === 'manual' ? '-certmode manual asks' : address.port === 443 ? '-a with port 443 asks' : undefined;
  if (wanted === undefined) return;
  throw new StartError(
    `${wanted} for TLS, which derplane ${version} does not have yet; serve plain HTTP on another port (-a 127.0.0.1:3340) and let a proxy in front do TLS, or try -dev`,
  );
}

function keyFile(c: string, isRoot: boolean): string {
  if (c !== '') return c;
  if (isRoot) return ROOT_KEY_FILE;
  throw new StartError(
    '-c is missing: without root there is no default place for the key file; give -c FILE, or -dev to try it out',
  );
}

/** The flag; without it the reference's variable, in which 0 and less stand for the default. */
function queueDepth({ values, given }: RelayFlags, env: NodeJS.ProcessEnv): number {
  const text = env[QUEUE_DEPTH_VARIABLE];
  if (given.has('queue-depth') || text === undefined || text === '') return values['queue-depth'];
  const { default: fallback, max } = FLAGS['queue-depth'];
  if (!/^-?\d+$/.test(text) || Number(text) > max) {
    throw new StartError(`${QUEUE_DEPTH_VARIABLE}=${JSON.stringify(text)}: must be an integer of at most ${max}`);
  }
  return Number(text) > 0 ? Number(text) : fallback;
}

function warnings({ values }: RelayFlags): string[] {
  const found: string[] = [];
  if (values.stun) found.push('STUN is not available yet and not served; -stun=false silences this warning');
  if (values.ace) found.push('-ace: the experimental CONNECT service of the reference is not available');
  return found;
}
