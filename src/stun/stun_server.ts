/** STUN for Tailscale's clients: it answers with the address that the network sees them by. Served natively, on its own thread. */
import { type Checks, checkLogger, checkOptions, checkString, integerIn } from '../checks.js';
import { guardedLogger, type Logger } from '../log.js';
import { LimitedLog } from '../log_limit.js';
import { type NativeStunServer, native } from '../native.js';
import { listenOn, listenOnFd, numericHost } from '../server/listening.js';
import { numberOption } from '../server/option_ranges.js';
import { STUN_ANSWER_RATE, STUN_PORT } from './defaults.js';

export interface StunServerOptions {
  /** Address; a name is resolved once. Default: `::`, both families (IPv4 only where the machine has no IPv6). */
  host?: string;
  /** A bound UDP socket in place of `host` and `port`; belongs to the server from then on. */
  fd?: number;
  /** UDP port; 0 takes a free one. Default: 3478. */
  port?: number;
  /**
   * Answers that one source, an IPv4 /24 or IPv6 /48, gets a second; 0 = no bound. Requests beyond are counted. Default: 10,000, ample for
   * the clients behind one carrier's NAT.
   */
  answersPerSecond?: number;
  /** Default: nowhere. */
  logger?: Logger;
}

/** Numbers since the start; the first three are those of derper's metrics `stun_*`. */
export interface StunStats {
  readonly requests: {
    /** Requests answered. */
    readonly success: number;
    /** Datagrams that are no binding request of Tailscale's. */
    readonly not_stun: number;
    /** Failed reads of the socket. */
    readonly read_error: number;
    /** Answers that the kernel refused. */
    readonly write_error: number;
  };
  /** Valid requests by the family of their source. */
  readonly addrfamily: { readonly ipv4: number; readonly ipv6: number };
  /** Valid requests for which the kernel did not say which of our addresses they were sent to. */
  readonly no_local_addr: number;
  /** Valid requests without an answer, since their source asked too often. */
  readonly rate_limited: number;
  /** Answers with a private address (RFC 1918, RFC 4193, link-local). */
  readonly told_private: number;
}

const CHECKS: Checks<StunServerOptions> = {
  host: checkString,
  port: numberOption('port'),
  fd: integerIn({ min: 0, max: 2 ** 31 - 1 }),
  answersPerSecond: numberOption('answersPerSecond'),
  logger: checkLogger,
};

/** Milliseconds between two looks at whether reads fail. */
const LOOK_INTERVAL = 1_000;

/** A STUN server that listens from {@link StunServer.listen} to {@link StunServer.close}. It does not keep the process alive. */
export class StunServer {
  readonly #native: NativeStunServer;
  readonly #log: LimitedLog;
  readonly #timer: NodeJS.Timeout;
  #readErrors = 0;
  /** What {@link stats} returns once it is closed. */
  #last: number[] | undefined;
  /** IP address that it listens on; `::` stands for both families. */
  readonly host: string;
  readonly port: number;

  private constructor(server: NativeStunServer, logger: Logger) {
    this.#native = server;
    this.#log = new LimitedLog(logger);
    const [, ipv6, ipv4, port] = /^(?:\[(.*)\]|(.*)):(\d+)$/.exec(server.address) ?? [];
    this.host = ipv6 ?? ipv4 ?? '';
    this.port = Number(port);
    this.#timer = setInterval(() => this.#look(), LOOK_INTERVAL).unref();
  }

  /**
   * Listens and serves.
   *
   * @throws {@link DerpError} `ERR_DERP_BAD_OPTION`; with the system's code (`EADDRINUSE`, `EACCES`, ...), `address`, `port` and `errno` when
   *   the address is unavailable
   */
  static async listen(options: StunServerOptions = {}): Promise<StunServer> {
    checkOptions(options, 'options', CHECKS);
    const { port = STUN_PORT, answersPerSecond = STUN_ANSWER_RATE } = options;
    const logger = guardedLogger(options.logger);
    const { fd } = options;
    if (fd !== undefined) {
      return listenOnFd(fd, () => new StunServer(new native.StunServer('', 0, answersPerSecond, fd), logger));
    }
    const host = await numericHost(options.host);
    return listenOn(
      { host, port, everywhere: options.host === undefined },
      (address) => new StunServer(new native.StunServer(address, port, answersPerSecond), logger),
    );
  }

  stats(): StunStats {
    const [success, notStun, readError, writeError, ipv4, ipv6, noLocal, rateLimited, toldPrivate] = (this.#last ??
      this.#native.figures()) as [number, number, number, number, number, number, number, number, number];
    return {
      requests: { success, not_stun: notStun, read_error: readError, write_error: writeError },
      addrfamily: { ipv4, ipv6 },
      no_local_addr: noLocal,
      rate_limited: rateLimited,
      told_private: toldPrivate,
    };
  }

  /** The first private address in an answer, as `IP:PORT`; empty while there is none. */
  get firstPrivate(): string {
    return this.#native.firstPrivate;
  }

  /** Ends its thread and frees the port. Idempotent. */
  async close(): Promise<void> {
    if (this.#last !== undefined) return;
    this.#last = this.#native.figures();
    clearInterval(this.#timer);
    this.#native.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #look(): void {
    const { read_error: readErrors } = this.stats().requests;
    if (readErrors > this.#readErrors) this.#log.log('error', 'read', {}, `STUN ReadFrom: ${this.#native.readError}`);
    this.#readErrors = readErrors;
  }
}
