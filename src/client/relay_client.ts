import { validateHeaderValue } from 'node:http';
import { bytesOf, type Checks, checkBoolean, checkOptions, checkString, integerIn, wrong } from '../checks.js';
import { DerpAbortError, DerpError } from '../errors.js';
import { Box } from '../protocol/box.js';
import type { PacketForwarder } from '../protocol/forwarder.js';
import { sealClientInfo } from '../protocol/info.js';
import { checkPrivateKey, checkPublicKey, type PrivateKey, type PublicKey } from '../protocol/key.js';
import { checkPem, type Pem } from '../tls/pem_option.js';
import { abortable, type SignalOptions, signalOf } from './abortable.js';
import { beginClient, type Client, restartOf } from './client.js';
import { CONNECT_TIMEOUT, TIMEOUT_RANGE } from './defaults.js';
import { displayUrl } from './dial.js';
import { type Trust, trustOf } from './dial_tls.js';
import type { ReceivedMessage, ReceivedPacket } from './messages.js';
import { messagesUntil, packetsUntil } from './messages_until.js';
import { openConnection } from './open_connection.js';
import { CLIENT_INFO_CHECKS, type ClientInfoOptions, clientInfoOf, needMeshKey } from './options.js';
import { busy } from './receive_queue.js';
import { parseRelayAddress } from './relay_address.js';
import { SharedAttempt } from './shared_attempt.js';
import { checkWatchLoopOptions, type WatchLoopEnd, type WatchLoopOptions, watchLoop } from './watch_loop.js';

/** Options of {@link RelayClient}. */
export interface RelayClientOptions extends ClientInfoOptions {
  /** Whether the relay shall leave out its HTTP answer (`Derp-Fast-Start: 1`), which saves bytes, no round trip. Default: false. */
  fastStart?: boolean;
  /** Name of the node that this client would rather be connected to, if this is not it. Default: none. */
  idealNode?: string;
  /** The relay's key, if known; another relay is then refused by its box. Default: what the relay says. */
  serverPublicKey?: PublicKey;
  /** Milliseconds for DNS, TCP, TLS, upgrade and handshake together. Default: 10,000. */
  connectTimeout?: number;
  /**
   * Over TLS: the name that the relay's certificate must be for, in place of the URL's host, which the relay is asked for all the same;
   * or `sha256-raw:` and the SHA-256 of the certificate in hexadecimal, which may then be self-signed. As `CertName` in a DERP map.
   * Default, and if empty: the URL's host.
   */
  certName?: string;
  /** Over TLS: PEM certificates of trusted authorities, in place of the roots of Node and the system. */
  ca?: Pem | readonly Pem[];
}

const CHECKS: Checks<RelayClientOptions> = {
  ...CLIENT_INFO_CHECKS,
  fastStart: checkBoolean,
  idealNode: checkString,
  serverPublicKey: checkPublicKey,
  connectTimeout: integerIn(TIMEOUT_RANGE),
  certName: checkString,
  ca: checkPem,
};

/** A message and the connection that it came over. */
export interface ReceivedDetail {
  readonly message: ReceivedMessage;
  /** Number of the connection: 1 for the first, one more after each reconnect. */
  readonly generation: number;
}

interface Link {
  readonly client: Client;
  readonly generation: number;
}

/**
 * A DERP client that dials its relay: when a method is first called, and again after the connection was lost. A loss is reported by the
 * calls that it hits, and once by {@link recv}; the next call reconnects. Callers that retry without limit should wait between attempts.
 *
 * A relay may announce its restart (a `restarting` message). When the connection is then lost, {@link recv} does not report it and goes
 * on over the next one: the client waits as long as the relay asked and up to half as long again, so that not all come back at once, and
 * tries for as long as the relay asked, at most a minute each.
 *
 * @example
 * ```ts
 * const client = new RelayClient(PrivateKey.generate(), 'https://derp.example.com/derp');
 * await client.connect();
 * await client.send(peer, Buffer.from('hello'));
 * console.log(await client.recv());
 * client.close();
 * ```
 */
export class RelayClient implements PacketForwarder, AsyncIterable<ReceivedMessage> {
  /** The address of this client. */
  readonly publicKey: PublicKey;
  /** The relay. */
  readonly url: URL;

  readonly #privateKey: PrivateKey;
  readonly #dialHost: string | undefined;
  readonly #options: RelayClientOptions;
  readonly #trust: Trust;
  /** What is sent over; may have failed. */
  #link: Link | undefined;
  /** What is received from: stays the old link until `recv` has reported its loss. */
  #source: Link | undefined;
  #connecting: SharedAttempt<Link> | undefined;
  /** Aborted by close(), with the error that all later calls get. */
  readonly #ending = new AbortController();
  #generation = 0;
  #receiving = false;
  #preferred = false;
  #watching = false;

  /**
   * @param url - `https://HOST[:PORT][/DIALHOST][/derp]`, or with `http://` on trusted networks; without a scheme it is `https://`. With
   *   DIALHOST that is dialled, while the relay's name, which its certificate must be for, stays HOST
   * @throws DerpError `ERR_DERP_BAD_OPTION` for a bad argument, URL or option, `ERR_DERP_CERTIFICATE` for a `ca` without certificates
   */
  constructor(privateKey: PrivateKey, url: string | URL, options: RelayClientOptions = {}) {
    checkPrivateKey(privateKey, 'privateKey');
    if (typeof url !== 'string' && !(url instanceof URL)) wrong('url', url, 'a string or a URL');
    checkOptions(options, 'options', CHECKS);
    ({ url: this.url, dialHost: this.#dialHost } = parseRelayAddress(url, 'url'));
    this.publicKey = privateKey.publicKey;
    this.#privateKey = privateKey;
    this.#options = { ...options };
    clientInfoOf(options);
    this.#trust = trustOf(options);
    if (options.idealNode !== undefined) checkHeader(options.idealNode);
  }

  /** The key of the relay that was last connected to. */
  get serverPublicKey(): PublicKey | undefined {
    return this.#link?.client.serverPublicKey;
  }

  /** Number of connections made so far. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * Connects, unless connected, and waits until the relay let this client in, so that peers can reach it. Other methods connect too, but
   * do not wait for that.
   * @throws DerpError `ERR_DERP_CONNECT` when the relay cannot be reached, `ERR_DERP_TIMEOUT`, `ERR_DERP_TLS` when TLS fails,
   *   `ERR_DERP_CERTIFICATE` when the relay's certificate is not trusted, `ERR_DERP_HTTP_STATUS` when it is not a DERP relay,
   *   `ERR_DERP_BAD_HANDSHAKE`, `ERR_DERP_BOX`, `ERR_DERP_CLOSED` after {@link close} or when the relay refuses this client, `ABORT_ERR`
   *   when the signal is aborted: the attempt ends then, unless other calls wait for it
   */
  async connect(options: SignalOptions = {}): Promise<void> {
    const signal = signalOf(options);
    const { client } = await this.#connected(signal);
    await abortable(client.ready(), signal);
  }

  /** As `Client.send`. @throws DerpError as that and {@link connect} */
  async send(destination: PublicKey, packet: Uint8Array): Promise<boolean> {
    checkPublicKey(destination, 'destination');
    const bytes = bytesOf(packet, 'packet');
    return (this.#live ?? (await this.#connected())).client.send(destination, bytes);
  }

  /**
   * The next message. A lost connection is reported once, after what arrived over it; the next call reconnects.
   * @throws DerpError as `Client.recv` and {@link connect}
   */
  async recv(options: SignalOptions = {}): Promise<ReceivedMessage> {
    return (await this.recvDetail(options)).message;
  }

  /** {@link recv} with the number of the connection. */
  async recvDetail(options: SignalOptions = {}): Promise<ReceivedDetail> {
    const signal = signalOf(options);
    if (this.#receiving) throw busy();
    this.#receiving = true;
    try {
      for (;;) {
        const detail = await this.#receiveFrom(this.#source ?? (await this.#connected(signal)), options);
        if (detail !== undefined) return detail;
      }
    } finally {
      this.#receiving = false;
    }
  }

  /** The next message of a link; nothing when the link ended as the relay had announced. */
  async #receiveFrom({ client, generation }: Link, options: SignalOptions): Promise<ReceivedDetail | undefined> {
    try {
      return { message: await client.recv(options), generation };
    } catch (error) {
      if (error instanceof DerpAbortError) throw error;
      this.#source = this.#live;
      if (this.#closed !== undefined) throw this.#closed;
      if (restartOf(client)?.isCurrent) return undefined;
      throw error;
    }
  }

  /** Messages until {@link close} is called; throws when the connection is lost, and may then be started again. */
  [Symbol.asyncIterator](): AsyncGenerator<ReceivedMessage, void, undefined> {
    return messagesUntil(
      () => this.recv(),
      (error) => error === this.#closed,
    );
  }

  /** Packets of other clients; messages of other kinds are dropped. Ends and throws as the iteration of all messages. */
  packets(options: SignalOptions = {}): AsyncGenerator<ReceivedPacket, void, undefined> {
    return packetsUntil(
      () => this.recv(options),
      (error) => error === this.#closed,
    );
  }

  /** As `Client.ping`. @throws DerpError as that and {@link connect} */
  async ping(options: SignalOptions = {}): Promise<number> {
    return (await this.#connected(signalOf(options))).client.ping(options);
  }

  /** As `Client.sendPong`. @throws DerpError as that and {@link connect} */
  async sendPong(data: Uint8Array): Promise<void> {
    const bytes = bytesOf(data, 'data');
    await (await this.#connected()).client.sendPong(bytes);
  }

  /** As `Client.notePreferred`; said again after each reconnect. @throws DerpError as that and {@link connect} */
  async notePreferred(preferred: boolean): Promise<void> {
    checkBoolean(preferred, 'preferred');
    this.#preferred = preferred;
    const live = this.#live;
    if (live !== undefined) await live.client.notePreferred(preferred);
    else await this.#connected();
  }

  /** As `Client.watchConnectionChanges`; asked again after each reconnect. @throws DerpError as that and {@link connect} */
  async watchConnectionChanges(): Promise<void> {
    needMeshKey(this.#options.meshKey, 'watchConnectionChanges');
    this.#watching = true;
    const live = this.#live;
    if (live !== undefined) await live.client.watchConnectionChanges();
    else await this.#connected();
  }

  /**
   * Keeps track of who is connected to the relay, and reconnects until {@link close}, the signal, or a relay with the key to be
   * ignored. That key lets a relay find itself in a list of relays to mesh with. Do not call {@link recv} meanwhile. Closes the client
   * at the end.
   * @throws DerpError `ERR_DERP_BAD_OPTION`, `ERR_DERP_NO_MESH_KEY`; failures to connect or receive go to `onError`
   */
  async runWatchConnectionLoop(options: WatchLoopOptions): Promise<WatchLoopEnd> {
    checkWatchLoopOptions(options);
    needMeshKey(this.#options.meshKey, 'runWatchConnectionLoop');
    return watchLoop(this, this.#ending.signal, options);
  }

  /** As `Client.closePeer`. @throws DerpError as that and {@link connect} */
  async closePeer(peer: PublicKey): Promise<void> {
    checkPublicKey(peer, 'peer');
    needMeshKey(this.#options.meshKey, 'closePeer');
    await (await this.#connected()).client.closePeer(peer);
  }

  /** As `Client.forwardPacket`. @throws DerpError as that and {@link connect} */
  async forwardPacket(source: PublicKey, destination: PublicKey, packet: Uint8Array): Promise<void> {
    checkPublicKey(source, 'source');
    checkPublicKey(destination, 'destination');
    const bytes = bytesOf(packet, 'packet');
    needMeshKey(this.#options.meshKey, 'forwardPacket');
    await (this.#live ?? (await this.#connected())).client.forwardPacket(source, destination, bytes);
  }

  /** Closes the connection for good; every call, waiting ones included, throws `ERR_DERP_CLOSED`. Idempotent. */
  close(): void {
    this.#ending.abort(new DerpError('ERR_DERP_CLOSED', 'the client was closed'));
    this.#connecting?.end(this.#closed);
    this.#source?.client.close();
    this.#link?.client.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  /** Why every call throws, once {@link close} was called. */
  get #closed(): DerpError | undefined {
    return this.#ending.signal.reason;
  }

  /** The link, while it works. */
  get #live(): Link | undefined {
    return this.#link?.client.failure === undefined ? this.#link : undefined;
  }

  /** The working link; concurrent callers share one connection attempt. */
  async #connected(signal?: AbortSignal): Promise<Link> {
    if (this.#closed !== undefined) throw this.#closed;
    const live = this.#live;
    if (live !== undefined) return live;
    if (this.#connecting === undefined || this.#connecting.isEnded) this.#connecting = this.#begin();
    return this.#connecting.wait(signal);
  }

  #begin(): SharedAttempt<Link> {
    const attempt = new SharedAttempt((signal) =>
      this.#connect(signal).finally(() => {
        if (this.#connecting === attempt) this.#connecting = undefined;
      }),
    );
    return attempt;
  }

  async #connect(signal: AbortSignal): Promise<Link> {
    const restart = this.#link === undefined ? undefined : restartOf(this.#link.client);
    try {
      const open = () => this.#open(signal);
      const client = await (restart?.isCurrent ? restart.reconnect(open, signal) : open());
      if (signal.aborted) {
        client.close();
        throw signal.reason;
      }
      const link = { client, generation: ++this.#generation };
      // What the relay must know again is written before anything else, and nothing can happen in between.
      const told = [
        this.#preferred ? client.notePreferred(true) : undefined,
        this.#watching ? client.watchConnectionChanges() : undefined,
      ];
      this.#link = link;
      this.#source ??= link;
      await Promise.all(told);
      return link;
    } catch (error) {
      throw this.#closed ?? error;
    }
  }

  #open(signal: AbortSignal): Promise<Client> {
    const { fastStart = false, idealNode, connectTimeout: timeout = CONNECT_TIMEOUT } = this.#options;
    const dialling = {
      url: this.url,
      dialHost: this.#dialHost,
      fastStart,
      idealNode,
      timeout,
      signal,
      trust: this.#trust,
    };
    const clientInfo = (relay: PublicKey) => this.#sealClientInfo(relay);
    return openConnection({ ...dialling, clientInfo }, (connection, { head, serverPublicKey: told }) =>
      beginClient(this.#privateKey, connection, {
        ...this.#options,
        head,
        handshakeTimeout: timeout,
        ...(told !== undefined && { serverPublicKey: told, clientInfoSent: true }),
      }),
    );
  }

  /** ClientInfo for a relay whose key is known from TLS. */
  #sealClientInfo(relay: PublicKey): Uint8Array {
    const { serverPublicKey: wanted } = this.#options;
    if (wanted !== undefined && !relay.equals(wanted)) {
      throw new DerpError(
        'ERR_DERP_BAD_HANDSHAKE',
        `${displayUrl(this.url)} has the key ${relay}, not the one wanted, ${wanted}`,
      );
    }
    return sealClientInfo(clientInfoOf(this.#options), this.publicKey, new Box(relay, this.#privateKey));
  }
}

function checkHeader(idealNode: string): void {
  try {
    validateHeaderValue('Ideal-Node', idealNode);
  } catch (cause) {
    throw new DerpError('ERR_DERP_BAD_OPTION', 'idealNode has characters that an HTTP header cannot carry', { cause });
  }
}
