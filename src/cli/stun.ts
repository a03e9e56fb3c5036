/** The STUN server of the program. */
import { allAddresses } from '../all_addresses.js';
import { addressOf } from '../host_name.js';
import { canonicalAddress, isPublicAddress } from '../ip_address.js';
import type { Logger } from '../log.js';
import { StunServer, type StunStats } from '../stun/stun_server.js';
import { type Address, formatAddress, listenError, listenHost } from './address.js';
import { StartError } from './exit.js';

export interface StunConfig {
  address: Address;
  /** 0: no bound. */
  answersPerSecond: number;
}

/** What STUN does for the rest of the program. */
export interface RunningStun {
  /** The port it listens on; undefined: it cannot listen. */
  readonly port: number | undefined;
  /** Undefined: it cannot listen. */
  stats(): StunStats | undefined;
  /** 1 once clients seem to be hidden by NAT in front of the relay, see {@link watchForNat}. */
  hidesClients(): number;
  close(): Promise<void>;
}

/** Milliseconds between two looks at the answers. */
const LOOK_INTERVAL = 1_000;

/**
 * Serves STUN. A port that is unavailable is an error in the log and a metric, and relaying goes on: nodes have other STUN servers.
 *
 * @param hostname - `-hostname`
 */
export async function startStun(config: StunConfig, hostname: string, logger: Logger): Promise<RunningStun> {
  const server = await listen(config, logger);
  if (server === undefined)
    return { port: undefined, stats: () => undefined, hidesClients: () => 0, close: async () => {} };
  const { host, port } = server;
  logger.info({}, `STUN server listening on ${formatAddress({ host, port })}`);
  const nat = watchForNat(server, hostname, logger);
  return {
    port,
    stats: () => server.stats(),
    hidesClients: () => (nat.found ? 1 : 0),
    close: () => {
      nat.close();
      return server.close();
    },
  };
}

async function listen({ address, answersPerSecond }: StunConfig, logger: Logger): Promise<StunServer | undefined> {
  try {
    const host = await listenHost(address);
    return await StunServer.listen({
      ...(address.sockets
        ? { fd: address.sockets[0]!.fd }
        : { ...(host !== undefined && { host }), port: address.port }),
      answersPerSecond,
      logger,
    });
  } catch (error) {
    const failure = error instanceof StartError ? error : listenError(address, error);
    logger.error({}, `derper: STUN is not served: ${failure.message}; relaying goes on`);
    return undefined;
  }
}

/** Resolves a name to its addresses. */
export type Resolve = (name: string) => Promise<string[]>;

/**
 * Logs once when STUN answers with a private address although `hostname` is public. The usual cause is NAT in front of the relay, as
 * in a container's bridge network. It replaces the clients' addresses by its own, and the answers are useless to them.
 */
export function watchForNat(
  server: Pick<StunServer, 'firstPrivate'>,
  hostname: string,
  logger: Logger,
  resolve: Resolve = allAddresses,
): { readonly found: boolean; close(): void } {
  const watch = { found: false, close: () => clearInterval(timer) };
  const timer = setInterval(() => {
    const { firstPrivate } = server;
    if (firstPrivate === '') return;
    clearInterval(timer);
    void isPublicHost(hostname, resolve).then((isPublic) => {
      if (!isPublic) return;
      watch.found = true;
      logger.warn(
        {},
        `STUN answered a client with the private address ${firstPrivate}, while -hostname ${hostname} is public. Unless that client is in this relay's own network, NAT hides the clients' addresses: give the relay the host's network (docker run --network host, hostNetwork: true)`,
      );
    });
  }, LOOK_INTERVAL).unref();
  return watch;
}

/** A name without addresses counts as not public. */
async function isPublicHost(hostname: string, resolve: Resolve): Promise<boolean> {
  const ip = addressOf(hostname);
  const addresses = ip === undefined ? await resolve(hostname).catch(() => []) : [ip];
  return addresses.some((address) => isPublicAddress(canonicalAddress(address) ?? ''));
}
