import type { Server as HttpServer } from 'node:http';
import type { Duplex } from 'node:stream';
import { ServerAdmission } from '../admission/server_admission.js';
import { bytesOf, checkDuplex, checkHttpServer, checkInteger, checkOptions, checkString, having } from '../checks.js';
import { trustOf } from '../client/dial_tls.js';
import { DerpError } from '../errors.js';
import { Handshakes } from '../handshake/handshakes.js';
import { guardedLogger, type Logger } from '../log.js';
import { LimitedLog } from '../log_limit.js';
import type { PacketForwarder } from '../protocol/forwarder.js';
import { checkPrivateKey, checkPublicKey, type PrivateKey, type PublicKey, secretOf } from '../protocol/key.js';
import { parseMeshKey } from '../protocol/mesh_key.js';
import { TrustedProxies } from '../proxies.js';
import { Shards } from '../shard/shards.js';
import type { ClientList, ClientQuery } from './client_query.js';
import { Clients } from './clients.js';
import { ConsistencyChecks } from './consistency_checks.js';
import * as defaults from './defaults.js';
import { drain } from './drain.js';
import { EmbeddedConnections } from './embedded.js';
import { dispatch, type Hearers, type Tell } from './events.js';
import { relayFigures } from './figures.js';
import { Forwarders } from './forwarders.js';
import { checkListenOptions, checkRemoteAddress, Listening, numericHost } from './listening.js';
import { Mesh } from './mesh.js';
import { parseMeshEntry } from './mesh_host.js';
import { numberOption } from './option_ranges.js';
import type { CloseOptions, Listener, ListenOptions, MeshPeer, RateLimit, ServerOptions } from './options.js';
import { PageConnections } from './page_connections.js';
import { type ResolvedOptions, resolveOptions, ringSize } from './resolve_options.js';
import { ServerEmitter, tell, watchClientListeners } from './server_events.js';
import { type Stats, shardStats, sumCounters } from './stats.js';
import type { ServerStats, ShardStats } from './stats_types.js';
import { remoteOf } from './takeover.js';
import { TlsListeners } from './tls_listeners.js';
import { type ConnectionTraffic, Traffic } from './traffic.js';

/** The range of a receive limit. */
const NOT_NEGATIVE = { min: 0, max: Number.MAX_SAFE_INTEGER };

/** How each relay's limit on accepting is asked. */
const accepting = new WeakMap<Server, () => boolean>();

/** Whether a listener beside the relay's own may accept one more connection. */
export function mayAccept(server: Server): boolean {
  return accepting.get(server)!();
}

const checkForwarder = having('a PacketForwarder', 'forwardPacket');

/**
 * A DERP relay. It listens itself ({@link Server.listen}), or serves connections of an existing `http.Server` ({@link Server.attach})
 * or from anywhere ({@link Server.accept}). Its threads run from construction to {@link Server.close}, and keep the process alive.
 *
 * @example
 * ```ts
 * const relay = new Server(PrivateKey.generate());
 * relay.attach(httpServer); // upgrades on /derp are DERP from now on
 * ```
 */
export class Server extends ServerEmitter {
  readonly #privateKey: PrivateKey;
  readonly #options: ResolvedOptions;
  readonly #logger: Logger;
  /** For lines that strangers can cause. */
  readonly #strangersLog: LimitedLog;
  readonly #shards: Shards;
  readonly #handshakes: Handshakes;
  readonly #admission: ServerAdmission;
  readonly #forwarders: Forwarders;
  readonly #mesh: Mesh;
  readonly #traffic: Traffic;
  readonly #clients: Clients;
  readonly #listening: Listening;
  readonly #pages: PageConnections;
  readonly #tls: TlsListeners;
  readonly #embedded: EmbeddedConnections;
  readonly #checks: ConsistencyChecks;
  readonly #hearers: Hearers;
  #meshKey: string | undefined;
  /** Whether there is a listener for client events. */
  #tellsClients = false;
  /** Lost client events that were already reported. */
  #lostEvents = 0;
  #rateLimit: RateLimit = { bytesPerSecond: 0, burst: 0 };
  /** Whether a rate limit was ever set, even to 0. */
  #rateLimitWasSet = false;
  #failure: DerpError | undefined;
  #closing: Promise<void> | undefined;
  /** Aborted when the drain time is over. */
  readonly #hurry = new AbortController();
  #markClosed!: () => void;

  /** Resolves when the relay is closed and its threads have ended, for whatever reason; {@link Server.failure} has the reason. */
  readonly closed = new Promise<void>((resolve) => {
    this.#markClosed = resolve;
  });

  /**
   * @throws DerpError `ERR_DERP_BAD_OPTION` when an option is out of its range, `ERR_DERP_BAD_KEY` for a malformed `mesh.key`,
   *   `ERR_DERP_NO_MESH_KEY` for `mesh.with` without one, `ERR_DERP_BAD_OPTION` for an unreadable or malformed `admission.keyFile`, `ERR_DERP_CERTIFICATE` for a `mesh.ca` without certificates
   */
  constructor(privateKey: PrivateKey, options: ServerOptions = {}) {
    super();
    checkPrivateKey(privateKey, 'privateKey');
    this.#privateKey = privateKey;
    this.#options = resolveOptions(options);
    const { shards, mesh, handshake, timeouts, queues } = this.#options;
    this.#logger = guardedLogger(this.#options.logger);
    this.#strangersLog = new LimitedLog(this.#logger, this.#options.logClients);
    this.#meshKey = mesh.key === undefined ? undefined : parseMeshKey(mesh.key);
    const meshTrust = trustOf({ ca: mesh.ca }, 'mesh.ca');
    const meshHosts = mesh.with.map((entry) => this.#meshHost(entry));
    this.#admission = new ServerAdmission(this.#options.admission, {
      logger: this.#logger,
      log: this.#strangersLog,
      closePeer: (key) => this.#shards.relay.closePeer(key),
    });
    this.#shards = new Shards({
      shards,
      publicKey: privateKey.publicKey.bytes,
      queueDepth: queues.depth,
      maxQueueBytes: queues.maxBytes,
      ringSize: ringSize(queues.ringBytes, shards),
      writeTimeout: timeouts.write,
      meshWriteTimeout: timeouts.write === 0 ? 0 : defaults.MESH_WRITE_TIMEOUT,
      keepAliveInterval: timeouts.keepAliveInterval,
      rttInterval: timeouts.rttInterval,
      maxHandshakes: handshake.maxPending,
      maxHandshakesPerSource: handshake.maxPendingPerSource,
      maxHandshakeBytes: handshake.maxBytes,
      firstByteTimeout: handshake.firstByteTimeout,
      disableFighters: this.#options.duplicatePolicy === 'disable-fighters',
      onEvents: (events) => {
        dispatch(events, this.#hearers);
        if (this.#tellsClients) this.#tellLost();
      },
      onLost: (index, reason) => this.#onShardLost(index, reason),
    });
    this.#shards.relay.setMeshKey(this.meshKey);
    if (this.#options.logClients) this.#shards.relay.setLogClients(true);
    const proxies = new TrustedProxies(this.#options.trustProxy);
    const { perSecond, burst } = this.#options.acceptLimit;
    this.#shards.relay.setAcceptLimit(perSecond, burst);
    accepting.set(this, () => this.#shards.relay.takeAccept());
    this.#handshakes = new Handshakes({
      proxies: proxies.ranges,
      relay: this.#shards.relay,
      privateKey: secretOf(privateKey),
      derp: this.#options.derp,
      requestTimeout: handshake.requestTimeout,
      clientInfoTimeout: handshake.clientInfoTimeout,
      admissionTimeout: this.#admission.timeout,
      connectAdmission: () => this.#admission.connect(),
      threads: handshake.threads,
      onTrouble: (message) => this.#strangersLog.log('error', 'handshake thread', {}, `derper: ${message}`),
    });
    this.#embedded = new EmbeddedConnections(this.#shards.relay, this.#strangersLog, proxies);
    this.#pages = new PageConnections(
      this.#shards.relay,
      this.#options.derp ? this.#embedded.webSockets : undefined,
      proxies,
    );
    this.#tls = new TlsListeners(this.#shards.relay.id, privateKey.publicKey);
    this.#listening = new Listening({
      relay: this.#shards.relay,
      logger: this.#logger,
      pages: this.#pages,
      tls: this.#tls,
      proxies: proxies.ranges,
    });
    this.#checks = new ConsistencyChecks(this.#shards.relay, shards);
    this.#forwarders = new Forwarders(this.#shards.relay, this.#strangersLog);
    this.#traffic = new Traffic(this.#shards.relay, shards);
    this.#clients = new Clients(this.#shards.relay, shards);
    this.#mesh = new Mesh({
      relay: this.#shards.relay,
      privateKey,
      log: this.#strangersLog,
      tell: this.#tell,
      retryInterval: mesh.retryInterval,
      dnsInterval: mesh.dnsInterval,
      meshKey: () => this.meshKey,
      trust: meshTrust,
    });
    this.#hearers = {
      relay: this.#shards.relay,
      log: this.#strangersLog,
      forwarders: this.#forwarders,
      checks: this.#checks,
      traffic: this.#traffic,
      clients: this.#clients,
      pages: this.#pages,
      tls: this.#tls,
      mesh: this.#mesh,
      embedded: this.#embedded,
      isClosing: () => this.#closing !== undefined,
      tell: this.#tell,
      tellsClients: () => this.#tellsClients,
    };
    watchClientListeners(this, (wanted) => this.#tellClients(wanted));
    this.#mesh.addLater(meshHosts);
  }

  /**
   * Resolves when all shards run. Waiting for it is optional: earlier connections wait for the shards.
   * @throws DerpError `ERR_DERP_SHARD_LOST` when one does not start; the relay is closed then
   */
  async ready(): Promise<void> {
    // A shard that does not start closes the relay, and `failure` tells what the shard's own error was.
    await Promise.race([this.#shards.ready().catch(() => this.closed), this.closed]);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /**
   * Why the relay closed on its own: `ERR_DERP_SHARD_LOST`, a shard's thread ended, and with it the way to every key
   * that it owned. Undefined while all is well, and after {@link Server.close}.
   */
  get failure(): DerpError | undefined {
    return this.#failure;
  }

  /** The relay's key; keep it secret. */
  get privateKey(): PrivateKey {
    return this.#privateKey;
  }

  get publicKey(): PublicKey {
    return this.#privateKey.publicKey;
  }

  /** Whether a mesh key is set. */
  get hasMeshKey(): boolean {
    return this.#meshKey !== undefined;
  }

  /** The mesh key, 64 lower-case hexadecimal characters, or empty. */
  get meshKey(): string {
    return this.#meshKey ?? '';
  }

  /**
   * Sets the key that makes a client a mesh peer; only connections made afterwards are compared with it.
   * @param key - 64 hexadecimal characters; surrounding white space is ignored
   * @throws DerpError `ERR_DERP_BAD_KEY`
   */
  setMeshKey(key: string): void {
    this.#meshKey = parseMeshKey(key);
    this.#shards.relay.setMeshKey(this.#meshKey);
  }

  /**
   * Keeps a link to another relay of the region: packets for keys that are connected there go over it. When the link ends, the relay
   * retries until it succeeds. Both relays need a link, one for each direction. If the host turns out to be this relay, the link is
   * dropped, so that all relays of a region may have the same list.
   * @param host - `HOST[:PORT][/DIALHOST]` for TLS with a certificate for HOST; with DIALHOST that is dialled, on HOST's port. With `http://`
   *   in front the link is plain, which without `mesh.insecureHttp` only goes to loopback. `[HOST/]dns:NAME[:PORT]` links to every address
   *   of NAME, with certificates for HOST or `mesh.hostname`, and follows the records of NAME
   * @throws DerpError `ERR_DERP_BAD_OPTION` saying what is wrong with `host`, `ERR_DERP_NO_MESH_KEY`, `ERR_DERP_CLOSED` after close()
   */
  addMeshPeer(host: string): MeshPeer {
    checkString(host, 'host');
    this.#assertOpen();
    return this.#mesh.add(this.#meshHost(host));
  }

  #meshHost(entry: string) {
    if (this.#meshKey === undefined) {
      throw new DerpError('ERR_DERP_NO_MESH_KEY', `mesh host ${JSON.stringify(entry)}: the relay has no mesh key`);
    }
    const { insecureHttp, hostname } = this.#options.mesh;
    return parseMeshEntry(entry, { insecureHttp, hostname });
  }

  /** A description of who may use the relay; undefined: anyone who can reach it. */
  get admission(): string | undefined {
    return this.#admission.summary;
  }

  /** Reads `admission.keyFile` now; while it is unreadable or malformed, the old list stays and the log says why. */
  reloadAdmission(): void {
    this.#assertOpen();
    this.#admission.reload();
  }

  /** The send limit of each client; `bytesPerSecond` 0 = no limit. */
  get rateLimit(): RateLimit {
    return this.#rateLimit;
  }

  /**
   * Limits what each client may send, by not reading what exceeds it: nothing is lost. A frame counts with its length, at most
   * 65,568 bytes. Clients that are connected get a new, full bucket; mesh peers are exempt.
   * @param bytesPerSecond - 0 = no limit
   * @param burst - bytes that a client may send at once; less than 65,568 is raised to that
   * @returns the limit now in force
   * @throws DerpError `ERR_DERP_BAD_OPTION` for anything but integers from 0 on, `ERR_DERP_CLOSED` after close()
   */
  setRateLimit(bytesPerSecond: number, burst = 0): RateLimit {
    this.#assertOpen();
    checkInteger(bytesPerSecond, 'bytesPerSecond', NOT_NEGATIVE);
    checkInteger(burst, 'burst', NOT_NEGATIVE);
    this.#rateLimit = { bytesPerSecond, burst: bytesPerSecond === 0 ? 0 : Math.max(burst, defaults.MIN_RATE_BURST) };
    this.#rateLimitWasSet = true;
    this.#shards.relay.setRateLimit(bytesPerSecond, this.#rateLimit.burst);
    return this.#rateLimit;
  }

  /** Metrics that derper shows only with a file of limits, even if the file says 0. */
  #limitVars(): Stats {
    const { bytesPerSecond, burst } = this.#rateLimit;
    if (!this.#rateLimitWasSet) return {};
    return { rate_limit_per_client_bytes_per_second: bytesPerSecond, rate_limit_per_client_burst_bytes: burst };
  }

  /** Milliseconds that a client's socket may accept no output; 0 = no limit. */
  get writeTimeout(): number {
    return this.#options.timeouts.write;
  }

  /** Number of the shard that owns `key`, from 0. @throws DerpError `ERR_DERP_BAD_OPTION` when it is not a PublicKey */
  shardOf(key: PublicKey): number {
    checkPublicKey(key, 'key');
    return this.#shards.relay.shardOf(key.bytes);
  }

  /**
   * Listens for DERP and HTTP, or HTTPS, on a TCP port. Connections are accepted natively; other requests than DERP upgrades go to `httpServer`.
   * Listening begins once the handshake threads run, or have failed to start.
   * @throws DerpError `ERR_DERP_BAD_OPTION`; with the system's code (`EADDRINUSE`, `EACCES`, ...), `syscall`, `address`, `port` and
   *   `errno` when the address is unavailable; `ERR_DERP_CLOSED` after close()
   */
  async listen(options: ListenOptions): Promise<Listener> {
    checkListenOptions(options);
    this.#assertOpen();
    const host = await numericHost(options.host);
    if (options.tls !== undefined) await this.#tls.prepare(options.tls);
    // A thread opens files as it starts. Connections must not take the last descriptors before.
    await this.#handshakes.ready;
    this.#assertOpen();
    const listener = this.#listening.open(options, host);
    if (options.httpServer !== undefined) this.attach(options.httpServer);
    this.#mesh.begin();
    return listener;
  }

  /**
   * Serves DERP upgrades on the path `/derp` of an existing server, which keeps every other request and upgrade. Idempotent.
   * @throws DerpError `ERR_DERP_BAD_OPTION`, `ERR_DERP_CLOSED` after close()
   */
  attach(httpServer: HttpServer): void {
    checkHttpServer(httpServer, 'httpServer');
    this.#assertOpen();
    if (this.#options.derp) this.#embedded.attach(httpServer);
    this.#mesh.beginWith(httpServer);
  }

  /**
   * Serves one connection to which the answer to the HTTP upgrade was already sent: ServerKey is the first thing that it will read.
   * A plain `net.Socket` gives its descriptor away; other streams are piped and cost more. The stream must not be used afterwards.
   *
   * @param socket - the connection
   * @param head - bytes of it that were already read
   * @param remoteAddress - `ip:port`, for logs and presence. Default: the socket's own
   * @returns resolves when the connection has ended, for whatever reason
   * @throws DerpError `ERR_DERP_BAD_OPTION`, the socket is left alone then; `ERR_DERP_CLOSED` after close(), the socket is destroyed then
   */
  async accept(socket: Duplex, head: Uint8Array = Buffer.alloc(0), remoteAddress?: string): Promise<void> {
    checkDuplex(socket, 'socket');
    const bytes = bytesOf(head, 'head');
    if (remoteAddress !== undefined) checkRemoteAddress(remoteAddress, 'remoteAddress');
    if (this.#closing !== undefined) socket.destroy();
    this.#assertOpen();
    this.#mesh.begin();
    await this.#embedded.admit(socket, bytes, remoteAddress ?? remoteOf(socket));
  }

  /**
   * Registers `forwarder` for packets to `destination` that no local connection takes. Of several the first registered is used.
   * Forwarded packets pass through JavaScript.
   */
  addPacketForwarder(destination: PublicKey, forwarder: PacketForwarder): void {
    checkPublicKey(destination, 'destination');
    checkForwarder(forwarder, 'forwarder');
    this.#assertOpen();
    this.#forwarders.add(destination, forwarder);
  }

  /** Removes a registration; unknown ones are counted. */
  removePacketForwarder(destination: PublicKey, forwarder: PacketForwarder): void {
    checkPublicKey(destination, 'destination');
    checkForwarder(forwarder, 'forwarder');
    this.#forwarders.remove(destination, forwarder);
  }

  /**
   * Checks every invariant of every shard's tables while the relay runs.
   * @throws DerpError `ERR_DERP_CONSISTENCY` naming each violated invariant; `ERR_DERP_CLOSED` after close()
   */
  async consistencyCheck(): Promise<void> {
    this.#assertOpen();
    const [violations, admission] = await Promise.all([this.#checks.run(), this.#admission.check()]);
    if (violations === undefined) throw this.#closedError();
    if (admission !== undefined) violations.push(admission);
    if (violations.length > 0) throw new DerpError('ERR_DERP_CONSISTENCY', violations.join('; '));
  }

  /**
   * Resolves when every thread that moves packets has answered. For watchdogs: it costs next to nothing.
   * @throws DerpError `ERR_DERP_CLOSED` after close()
   */
  async ping(): Promise<void> {
    this.#assertOpen();
    if (!(await this.#checks.ping())) throw this.#closedError();
  }

  /**
   * Traffic of every client that has a TCP connection, as the kernel counts it.
   * @throws DerpError `ERR_DERP_CLOSED` after close()
   */
  async traffic(): Promise<ConnectionTraffic[]> {
    this.#assertOpen();
    return this.#traffic.snapshot();
  }

  /**
   * Who is connected: one sorted page of the clients that match. Shards search in small steps between packets, and answer one
   * query at a time. Clients may come and go meanwhile.
   * @throws DerpError `ERR_DERP_BAD_OPTION`; `ERR_DERP_BUSY` when too many queries wait; `ERR_DERP_CLOSED` after close()
   */
  async clients(query: ClientQuery = {}): Promise<ClientList> {
    this.#assertOpen();
    return this.#clients.ask(query);
  }

  /** The current metrics of each shard, in order; names as in {@link Server.expVar}. */
  shardVars(): ShardStats[] {
    return shardStats(this.#shards.counters) as ShardStats[];
  }

  /** The current metrics of the relay; names and meaning are those of derper's expvar `derp`. */
  expVar(): ServerStats {
    const { relay, counters } = this.#shards;
    return relayFigures({
      relay,
      counters,
      webSockets: this.#embedded.webSockets,
      forwarders: this.#forwarders,
      tls: this.#tls,
      limits: this.#limitVars(),
      admission: this.#admission.figures(),
    });
  }

  /**
   * Stops listening, ends every connection and the threads. With `drainTime`, clients first get a Restarting frame and are then
   * closed one after another, so as not to overload other relays. The drain ends early when all are gone. A call without `drainTime`,
   * or with 0, ends a running drain.
   * @throws DerpError `ERR_DERP_BAD_OPTION`
   */
  close(options: CloseOptions = {}): Promise<void> {
    try {
      checkOptions<CloseOptions>(options, 'options', { drainTime: numberOption('drainTime') });
    } catch (error) {
      return Promise.reject(error);
    }
    const { drainTime = 0 } = options;
    if (drainTime === 0) this.#hurry.abort();
    this.#closing ??= this.#close(drainTime).finally(this.#markClosed);
    return this.#closing;
  }

  /** {@link close} without a drain, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(drainTime: number): Promise<void> {
    this.#listening.close();
    this.#embedded.detach();
    const meshClosed = this.#mesh.close();
    if (drainTime > 0) {
      const clients = () => Number(sumCounters(this.#shards.counters).gauge_current_connections);
      await drain(this.#shards.relay, clients, drainTime, this.#hurry.signal);
      this.#tell('drained');
    }
    await meshClosed;
    this.#embedded.webSockets.close();
    this.#pages.close();
    this.#tls.close();
    await Promise.all([this.#shards.close(), this.#handshakes.close()]);
    this.#admission.close();
    this.#embedded.close();
    this.#traffic.close();
    this.#clients.close();
    this.#checks.close();
  }

  /** Listeners belong to the embedder: their exceptions are logged. */
  readonly #tell: Tell = (event, ...args) => {
    const failed = (error: unknown) =>
      this.#strangersLog.log(
        'error',
        `listener ${event}`,
        {},
        `derper: a listener of ${event} threw: ${String(error)}`,
      );
    tell(this, failed, event, ...args);
  };

  /** Starts or stops client events of the shards. */
  #tellClients(wanted: boolean): void {
    this.#tellsClients = wanted;
    this.#lostEvents = this.#shards.relay.lostEvents;
    this.#shards.relay.setClientEvents(wanted);
  }

  #tellLost(): void {
    const { lostEvents } = this.#shards.relay;
    const lost = lostEvents - this.#lostEvents;
    this.#lostEvents = lostEvents;
    if (lost > 0) this.#tell('clientEventsLost', lost);
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw this.#closedError();
  }

  #closedError(): DerpError {
    const cause = this.#failure;
    return new DerpError('ERR_DERP_CLOSED', `the relay is closed${cause ? `: ${cause.message}` : ''}`, { cause });
  }

  /** Keys of a lost shard are unreachable, so the relay closes. */
  #onShardLost(index: number, reason: string): void {
    this.#failure = new DerpError('ERR_DERP_SHARD_LOST', `shard ${index} ended: ${reason}`);
    this.#logger.error({ shard: index, reason }, `derper: ${this.#failure.message}; closing the relay`);
    void this.close();
  }
}
