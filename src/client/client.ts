import { bytesOf, checkBoolean, having } from '../checks.js';
import { DerpAbortError, DerpError } from '../errors.js';
import type { Box } from '../protocol/box.js';
import type { PacketForwarder } from '../protocol/forwarder.js';
import {
  closePeerFrame,
  FrameType,
  forwardPacketFrame,
  notePreferredFrame,
  pingFrame,
  pongFrame,
  sendPacketFrame,
  watchConnsFrame,
} from '../protocol/frame.js';
import type { Frame } from '../protocol/frame_reader.js';
import { type ClientInfo, openServerInfo } from '../protocol/info.js';
import { checkPrivateKey, checkPublicKey, type PrivateKey, type PublicKey } from '../protocol/key.js';
import { abortable, type SignalOptions, signalOf } from './abortable.js';
import type { Conn } from './conn.js';
import { FORWARD_TIMEOUT } from './defaults.js';
import type { FrameStream } from './frame_stream.js';
import { type HandshakeOptions, handshake, type Session } from './handshake.js';
import type { ReceivedMessage, ReceivedPacket } from './messages.js';
import { messagesUntil, packetsUntil } from './messages_until.js';
import { type ClientOptions, checkClientOptions, clientInfoOf, needMeshKey } from './options.js';
import { Pings } from './pings.js';
import { readMessage } from './read_message.js';
import { Readiness } from './readiness.js';
import { ReceiveQueue } from './receive_queue.js';
import { AnnouncedRestart } from './restart.js';
import { TokenBucket } from './token_bucket.js';

const checkConn = having('a Conn, such as a net.Socket', 'write', 'on', 'pause', 'resume', 'destroy');

let create: (publicKey: PublicKey, info: ClientInfo, session: Session) => Client;

/** The restart that a client's relay announced last, if it did. */
export let restartOf: (client: Client) => AnnouncedRestart | undefined;

/** `Client.connect` for those who may have sent ClientInfo before; checks nothing. */
export async function beginClient(privateKey: PrivateKey, conn: Conn, options: HandshakeOptions): Promise<Client> {
  const info = clientInfoOf(options);
  return create(privateKey.publicKey, info, await handshake(privateKey, conn, info, options));
}

/**
 * A DERP client on one connection. When that connection fails, the client is dead for good; `RelayClient` is the one that reconnects.
 *
 * Messages wait for {@link recv}, at most 256 of them or 1 MiB. At the limit, the client stops reading the connection. So a client that
 * only sends must also receive, or its pings stay unanswered.
 *
 * @example
 * ```ts
 * const client = await Client.connect(PrivateKey.generate(), socket, { head });
 * await client.ready();
 * await client.send(peer, Buffer.from('hello'));
 * for await (const { source, data } of client.packets()) console.log(source.shortString(), data.length);
 * ```
 */
export class Client implements PacketForwarder, AsyncIterable<ReceivedMessage> {
  /** The address of this client. */
  readonly publicKey: PublicKey;
  /** The relay's own key. */
  readonly serverPublicKey: PublicKey;

  readonly #stream: FrameStream;
  readonly #box: Box;
  readonly #info: ClientInfo;
  readonly #queue = new ReceiveQueue();
  readonly #pings = new Pings();
  readonly #readiness = new Readiness();
  /** What the relay asked for in ServerInfo; packets that exceed it are dropped. */
  #bucket: TokenBucket | undefined;
  /** At most one pong waits for the socket: a relay that floods pings and reads nothing gets no buffer to grow. */
  #pongPending = false;
  #restart: AnnouncedRestart | undefined;
  #closed = false;

  static {
    create = (publicKey, info, session) => new Client(publicKey, info, session);
    restartOf = (client) => client.#restart;
  }

  private constructor(publicKey: PublicKey, info: ClientInfo, { stream, serverPublicKey, box }: Session) {
    this.publicKey = publicKey;
    this.serverPublicKey = serverPublicKey;
    this.#stream = stream;
    this.#box = box;
    this.#info = info;
    stream.onActivity = () => this.#pump();
    this.#pump();
  }

  /**
   * Does the DERP handshake on a connection that was already upgraded. Resolves when the relay's key is known and ClientInfo was sent;
   * packets may be sent from then on, but peers reach this client only once {@link ready} resolves.
   * @throws DerpError `ERR_DERP_BAD_OPTION`, `ERR_DERP_BAD_HANDSHAKE`, `ERR_DERP_BAD_FRAME`, `ERR_DERP_BOX`, `ERR_DERP_CLOSED`,
   *   `ERR_DERP_TIMEOUT`, `ABORT_ERR`; the connection is then closed, unless an argument was wrong
   */
  static async connect(privateKey: PrivateKey, conn: Conn, options: ClientOptions = {}): Promise<Client> {
    checkPrivateKey(privateKey, 'privateKey');
    checkConn(conn, 'conn');
    checkClientOptions(options);
    clientInfoOf(options);
    if (options.signal?.aborted) {
      conn.destroy();
      throw new DerpAbortError(options.signal);
    }
    return beginClient(privateKey, conn, options);
  }

  /** Why the client is dead, once it is. */
  get failure(): DerpError | undefined {
    return this.#stream.failure;
  }

  /**
   * Resolves once the relay let this client in (its ServerInfo arrived): peers can reach it from then on.
   * @throws DerpError as {@link recv}; a relay that refuses a client closes the connection: `ERR_DERP_CLOSED`
   */
  async ready(options: SignalOptions = {}): Promise<void> {
    return abortable(this.#readiness.promise, signalOf(options));
  }

  /**
   * Sends a packet. Resolves when the connection took it, which says nothing about its arrival: DERP may lose packets. Await it, else
   * packets pile up in memory while the relay does not read.
   * @param packet - 0 to 65,536 bytes; copied
   * @returns whether it was sent: false when it exceeds the rate that the relay announced, and was dropped
   * @throws DerpError `ERR_DERP_BAD_OPTION`, `ERR_DERP_PACKET_TOO_BIG`, `ERR_DERP_CLOSED`, `ERR_DERP_TIMEOUT`
   */
  async send(destination: PublicKey, packet: Uint8Array): Promise<boolean> {
    checkPublicKey(destination, 'destination');
    const frame = sendPacketFrame(destination, bytesOf(packet, 'packet'));
    if (this.#bucket !== undefined && !this.#bucket.take(frame.length, performance.now())) return false;
    await this.#stream.write(frame);
    return true;
  }

  /**
   * The next message, in the order of arrival. After a failure, messages that arrived before are returned first; then every call
   * throws that failure.
   * @throws DerpError `ERR_DERP_CLOSED` when the connection ended or {@link close} was called, `ERR_DERP_TIMEOUT` after 120 s without a
   *   frame, `ERR_DERP_BAD_FRAME` for a frame over 1 MiB, `ERR_DERP_BOX` and `ERR_DERP_BAD_HANDSHAKE` for a bad ServerInfo;
   *   `ERR_DERP_BUSY` while another call waits, `ABORT_ERR` (these two harm nothing, and lose no message)
   */
  async recv(options: SignalOptions = {}): Promise<ReceivedMessage> {
    const message = this.#queue.take(signalOf(options));
    this.#pump();
    return message;
  }

  /** Messages until {@link close} is called; throws as {@link recv} when the connection fails. */
  [Symbol.asyncIterator](): AsyncGenerator<ReceivedMessage, void, undefined> {
    return messagesUntil(
      () => this.recv(),
      (error) => this.#closed && error === this.failure,
    );
  }

  /**
   * Packets of other clients until {@link close} is called; messages of other kinds are dropped.
   * @throws DerpError as {@link recv}
   */
  packets(options: SignalOptions = {}): AsyncGenerator<ReceivedPacket, void, undefined> {
    return packetsUntil(
      () => this.recv(options),
      (error) => this.#closed && error === this.failure,
    );
  }

  /**
   * Round-trip time to the relay in milliseconds. Relays answer one ping at a time.
   * @throws DerpError `ERR_DERP_TIMEOUT` after 5 s, `ERR_DERP_CLOSED`, `ABORT_ERR`
   */
  async ping(options: SignalOptions = {}): Promise<number> {
    return this.#pings.start((data) => this.#stream.write(pingFrame(data)), signalOf(options));
  }

  /**
   * Answers a ping message; needed only with `canAckPings: false`.
   * @param data - the ping's 8 bytes
   * @throws DerpError `ERR_DERP_BAD_OPTION`, `ERR_DERP_BAD_FRAME` for another length, `ERR_DERP_CLOSED`
   */
  async sendPong(data: Uint8Array): Promise<void> {
    await this.#stream.write(pongFrame(bytesOf(data, 'data')));
  }

  /**
   * Tells the relay whether it is this client's home; it only counts that.
   * @throws DerpError `ERR_DERP_BAD_OPTION`, `ERR_DERP_CLOSED`
   */
  async notePreferred(preferred: boolean): Promise<void> {
    checkBoolean(preferred, 'preferred');
    await this.#stream.write(notePreferredFrame(preferred));
  }

  /**
   * Asks for a `peerPresent` for every client that is connected now or later, and a `peerGone` for each that leaves.
   * @throws DerpError `ERR_DERP_NO_MESH_KEY` when the client was made without one, `ERR_DERP_CLOSED`. A wrong mesh key makes the relay close.
   */
  async watchConnectionChanges(): Promise<void> {
    needMeshKey(this.#info.meshKey, 'watchConnectionChanges');
    await this.#stream.write(watchConnsFrame());
  }

  /**
   * Asks the relay to close all connections of a key.
   * @throws DerpError as {@link watchConnectionChanges}
   */
  async closePeer(peer: PublicKey): Promise<void> {
    checkPublicKey(peer, 'peer');
    needMeshKey(this.#info.meshKey, 'closePeer');
    await this.#stream.write(closePeerFrame(peer));
  }

  /**
   * Sends a packet in the name of a client of another relay. If the connection does not take it within 5 s, the client fails.
   * @throws DerpError as {@link watchConnectionChanges} and {@link send}
   */
  async forwardPacket(source: PublicKey, destination: PublicKey, packet: Uint8Array): Promise<void> {
    checkPublicKey(source, 'source');
    checkPublicKey(destination, 'destination');
    const bytes = bytesOf(packet, 'packet');
    needMeshKey(this.#info.meshKey, 'forwardPacket');
    const frame = forwardPacketFrame(source, destination, bytes);
    const timer = setTimeout(() => {
      const seconds = FORWARD_TIMEOUT / 1000;
      this.#stream.abort(new DerpError('ERR_DERP_TIMEOUT', `the relay took no forwarded packet for ${seconds} s`));
    }, FORWARD_TIMEOUT);
    try {
      await this.#stream.write(frame);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Closes the connection and drops what was not received. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#queue.clear();
    this.#stream.abort(new DerpError('ERR_DERP_CLOSED', 'the client was closed'));
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  /** Moves frames from the stream into the queue, as far as there is room; then passes a failure on. */
  #pump(): void {
    while (!this.#queue.isFull) {
      const frame = this.#stream.next();
      if (frame === undefined) break;
      this.#handle(frame);
    }
    const failure = this.#stream.failure;
    if (failure === undefined) return;
    this.#readiness.reject(failure);
    this.#pings.fail(failure);
    this.#queue.fail(failure);
  }

  #handle(frame: Frame): void {
    const message = frame.type === FrameType.SERVER_INFO ? this.#admitted(frame.body) : readMessage(frame);
    if (message === undefined) return;
    if (message.type === 'ping' && this.#info.canAckPings) this.#answer(message.data);
    if (message.type === 'restarting') this.#restart = new AnnouncedRestart(message);
    if (message.type === 'pong' && this.#pings.answered(message.data)) return;
    this.#queue.push(message, frame.body.length);
  }

  /** Obeys ServerInfo; a bad one ends the client. */
  #admitted(body: Buffer): ReceivedMessage | undefined {
    try {
      const info = openServerInfo(body, this.#box);
      const { tokenBucketBytesPerSecond: perSecond, tokenBucketBytesBurst: burst } = info;
      this.#bucket = perSecond > 0 ? new TokenBucket(perSecond, burst, performance.now()) : undefined;
      this.#readiness.resolve();
      return { type: 'serverInfo', ...info };
    } catch (error) {
      this.#stream.abort(error as DerpError);
      return undefined;
    }
  }

  #answer(data: Buffer): void {
    if (this.#pongPending) return;
    this.#pongPending = true;
    const done = () => {
      this.#pongPending = false;
    };
    // A write that fails ends the stream, which `recv` reports.
    this.#stream.write(pongFrame(data)).then(done, done);
  }
}
