/** The listeners of a relay. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { AcceptTrouble } from '../accept_trouble.js';
import { badOption, type Checks, checkHttpServer, checkOptions, checkString, integerIn, wrong } from '../checks.js';
import { DerpError, type DerpErrorCode, errnoOf, systemDetail } from '../errors.js';
import { hostOf, withPort } from '../ip_address.js';
import type { Logger } from '../log.js';
import type { NativeListener, NativeRelay } from '../native.js';
import { nativeOf, TlsContext } from '../tls/tls_context.js';
import * as defaults from './defaults.js';
import { numberOption } from './option_ranges.js';
import type { Listener, ListenOptions } from './options.js';
import type { PageConnections } from './page_connections.js';
import type { TlsListeners } from './tls_listeners.js';

/** The default listen address: both families. */
const EVERYWHERE = '::';
const EVERYWHERE_IPV4 = '0.0.0.0';

/** What a descriptor may be. */
const DESCRIPTORS = { min: 0, max: 2 ** 31 - 1 };

const CHECKS: Checks<ListenOptions> = {
  host: (value, name) => {
    checkString(value, name);
    if (value === '') throw badOption(`${name}: is empty; leave it out to listen everywhere`);
  },
  port: numberOption('port'),
  fd: integerIn(DESCRIPTORS),
  tcpKeepaliveTime: numberOption('tcpKeepaliveTime'),
  tcpUserTimeout: numberOption('tcpUserTimeout'),
  tls: (value, name) => {
    if (!(value instanceof TlsContext)) wrong(name, value, 'a TlsContext');
  },
  httpServer: checkHttpServer,
};

/** @throws DerpError `ERR_DERP_BAD_OPTION` */
export function checkListenOptions(options: unknown): asserts options is ListenOptions {
  checkOptions(options, 'options', CHECKS);
  if (options.fd === undefined) {
    if (options.port === undefined) throw badOption('port: is missing; 0 takes a free one');
  } else if (options.port !== undefined || options.host !== undefined) {
    throw badOption('fd: names a socket that has its address, so that host and port must be left out');
  }
}

export interface ListeningOptions {
  relay: NativeRelay;
  logger: Logger;
  pages: PageConnections;
  tls: TlsListeners;
  /** Address ranges of proxies. */
  proxies: readonly string[];
}

/** A native listener, and the address that it took. */
interface Bound {
  native: NativeListener;
  address: string;
}

export class Listening {
  readonly #options: ListeningOptions;
  readonly #listeners = new Set<Listener>();

  constructor(options: ListeningOptions) {
    this.#options = options;
  }

  /**
   * @param options - checked
   * @param host - numeric
   * @throws DerpError with the system's code
   */
  open(options: ListenOptions, host: string): Listener {
    const { pages, tls } = this.#options;
    const tag = pages.addServer(options.httpServer);
    let bound: Bound;
    try {
      bound = this.#bind(options, host, tag);
    } catch (error) {
      pages.removeServer(tag);
      throw error;
    }
    if (options.tls !== undefined) tls.bind(tag, options.tls, options.httpServer);
    const { native, address } = bound;
    const close = () => {
      native.close();
      this.#listeners.delete(listener);
    };
    const listener: Listener = {
      host: address,
      port: native.port,
      close,
      [Symbol.dispose]: close,
      [Symbol.asyncDispose]: async () => close(),
    };
    this.#listeners.add(listener);
    return listener;
  }

  close(): void {
    for (const listener of [...this.#listeners]) listener.close();
  }

  #bind(options: ListenOptions, host: string, tag: number): Bound {
    const { port = 0, fd } = options;
    const { tcpKeepaliveTime = defaults.TCP_KEEPALIVE_TIME, tcpUserTimeout = defaults.TCP_USER_TIMEOUT } = options;
    const { relay, logger, proxies } = this.#options;
    const trouble = new AcceptTrouble(logger, 'accept', 'connections wait');
    const tls = options.tls === undefined ? {} : { tls: nativeOf(options.tls) };
    const at = { tcpKeepaliveTime, tcpUserTimeout, tag, proxies, ...tls };
    const listenAt = (address: string, socket = {}) => ({
      native: relay.listen({ host: address, port, ...at, ...socket }, (code) => trouble.failed(code)),
      address,
    });
    if (fd === undefined) return listenOn({ host, port, everywhere: options.host === undefined }, listenAt);
    const { native } = listenOnFd(fd, () => listenAt('', { fd }));
    return { native, address: hostOf(native.address) };
  }
}

/**
 * Opens a socket by `open`. Where that means every address and the machine has no IPv6, on every IPv4 address.
 * @throws DerpError with the system's code, address and port
 */
export function listenOn<T>(
  { host, port, everywhere }: { host: string; port: number; everywhere: boolean },
  open: (address: string) => T,
): T {
  try {
    return open(host);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const noIPv6 = code === 'EAFNOSUPPORT' || code === 'EADDRNOTAVAIL';
    if (!everywhere || !noIPv6) throw listenError(error, host, port);
  }
  try {
    return open(EVERYWHERE_IPV4);
  } catch (error) {
    throw listenError(error, EVERYWHERE_IPV4, port);
  }
}

/** Takes an inherited socket by `open`. @throws DerpError with the system's code */
export function listenOnFd<T>(fd: number, open: () => T): T {
  try {
    return open();
  } catch (error) {
    throw listenError(error, `fd ${fd}`);
  }
}

/**
 * The address to listen on.
 * @throws DerpError with the code of the look-up: `ENOTFOUND`
 */
export async function numericHost(host: string = EVERYWHERE): Promise<string> {
  if (isIP(host) !== 0) return host;
  try {
    return (await lookup(host)).address;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new DerpError(code as DerpErrorCode, message, { ...systemDetail(cause), address: host, cause });
  }
}

/** What the system said, in the form of Node's own servers. */
function listenError(cause: unknown, address: string, port?: number): DerpError {
  const { code = 'EINVAL', message } = cause as NodeJS.ErrnoException;
  const errno = errnoOf(code);
  return new DerpError(
    code as DerpErrorCode,
    `listen ${code}: ${message} ${port === undefined ? address : withPort(address, port)}`,
    {
      syscall: 'listen',
      address,
      ...(port !== undefined && { port }),
      ...(errno !== undefined && { errno }),
      cause,
    },
  );
}

/** `ip:port`, IPv6 in brackets; empty when there is none. */
export function checkRemoteAddress(value: unknown, name: string): asserts value is string {
  checkString(value, name);
  if (value === '') return;
  const [, ipv6, ipv4, port] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(value) ?? [];
  if (isIP(ipv6 ?? ipv4 ?? '') !== 0 && Number(port) <= 65_535) return;
  throw badOption(`${name} ${JSON.stringify(value)}: must be IP:PORT or [IPv6]:PORT, or empty`);
}
