/** Sockets that a service manager opened for this process: systemd's socket activation (sd_listen_fds(3)). */
import type { NativeAddon } from '../native.js';
import type { Address } from './address.js';
import { StartError } from './exit.js';

export interface InheritedSocket {
  fd: number;
  /** `FileDescriptorName=` of its unit. */
  name: string;
  kind: 'tcp' | 'udp' | 'other';
  /** `ip:port`. */
  address: string;
}

/** Where such sockets begin. */
const FIRST_FD = 3;

/** What stands for inherited sockets where a flag takes an address: all of them, or those of a name. */
const PREFIX = 'fd:';

export function isSocketName(text: string): boolean {
  return text.startsWith(PREFIX);
}

/**
 * The sockets that are meant for this process.
 *
 * @throws {@link StartError} when the environment and the descriptors do not fit together
 */
export function inheritedSockets(
  env: NodeJS.ProcessEnv,
  describe: NativeAddon['describeSocket'],
  pid = process.pid,
): InheritedSocket[] {
  const { LISTEN_PID: owner, LISTEN_FDS: count, LISTEN_FDNAMES: names = '' } = env;
  if (owner === undefined || count === undefined || Number(owner) !== pid) return [];
  if (!/^\d{1,4}$/.test(count))
    throw new StartError(`LISTEN_FDS=${JSON.stringify(count)}: must be a number of sockets`);
  const each = names.split(':');
  return Array.from({ length: Number(count) }, (_, index) => {
    const fd = FIRST_FD + index;
    try {
      return { fd, name: each[index] ?? '', ...describe(fd) };
    } catch (error) {
      throw new StartError(`LISTEN_FDS=${count}: descriptor ${fd} is not a socket: ${(error as Error).message}`, {
        cause: error,
      });
    }
  });
}

export interface SocketChoice {
  flag: string;
  /** `fd:` or `fd:NAME`. */
  text: string;
  kind: 'tcp' | 'udp';
  /** Names that other flags take; `fd:` leaves these. */
  taken: readonly string[];
  /** Whether several can be served. */
  several?: boolean;
}

/** The names of sockets among the values of flags. */
export function socketNames(values: readonly string[]): string[] {
  return values.filter((text) => isSocketName(text) && text !== PREFIX).map((text) => text.slice(PREFIX.length));
}

/**
 * The address of a flag that names inherited sockets.
 *
 * @throws {@link StartError} when there are none, or too many
 */
export function chooseSockets(choice: SocketChoice, sockets: readonly InheritedSocket[]): Address {
  const { flag, text, kind, taken, several = false } = choice;
  const fail = (reason: string) => new StartError(`${flag} ${JSON.stringify(text)}: ${reason}`);
  if (sockets.length === 0) {
    throw fail('no sockets were passed to this process; start it by a systemd socket unit, or name an address');
  }
  const wanted = text.slice(PREFIX.length);
  const named = sockets.filter(({ name }) => (wanted === '' ? !taken.includes(name) : name === wanted));
  const found = named.filter((socket) => socket.kind === kind);
  if (found.length === 0) {
    const passed = sockets.map(({ name, kind, address }) => `${name || 'without a name'} (${kind} ${address})`);
    const what = kind === 'tcp' ? 'listening TCP' : 'UDP';
    throw fail(`no ${what} socket of that name was passed, but ${passed.join(', ')}`);
  }
  if (!several && found.length > 1) throw fail(`${found.length} sockets were passed for it, and it takes one`);
  const [, host = '', port] = /^\[?(.*?)\]?:(\d+)$/.exec(found[0]!.address) ?? [];
  return { flag, host, port: Number(port), sockets: found };
}
