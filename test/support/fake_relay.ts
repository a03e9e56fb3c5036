/** A relay whose every byte the test decides: for what a real one never does. */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { FRAME_HEADER_LENGTH, readBodyLength, serverKeyFrame } from '../../dist/protocol/frame.js';
import type { Frame } from '../../dist/protocol/frame_reader.js';
import { type OpenedClientInfo, openClientInfo, sealServerInfo } from '../../dist/protocol/info.js';
import { PrivateKey } from '../../dist/protocol/key.js';

/** Listens on a loopback port; connections are handed out in the order in which they come. */
export class FakeRelay {
  readonly privateKey: PrivateKey;
  readonly #scheme: string;
  readonly #server: Server;
  readonly #accepted: FakeConnection[] = [];
  readonly #all: FakeConnection[] = [];
  readonly #waiting: ((connection: FakeConnection) => void)[] = [];

  private constructor(server: Server, privateKey: PrivateKey, secure: boolean) {
    this.#server = server;
    this.privateKey = privateKey;
    this.#scheme = secure ? 'https' : 'http';
    server.on(secure ? 'secureConnection' : 'connection', (socket: Socket) => {
      const connection = new FakeConnection(socket, this.privateKey);
      this.#all.push(connection);
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#accepted.push(connection);
      else waiting(connection);
    });
  }

  /** @param tls - default: connections are plain */
  static async start(options: { tls?: TlsOptions; privateKey?: PrivateKey; host?: string } = {}): Promise<FakeRelay> {
    const { tls, privateKey = PrivateKey.generate(), host = '127.0.0.1' } = options;
    const server = (tls === undefined ? createServer() : createTlsServer(tls)).listen(0, host);
    await once(server, 'listening');
    return new FakeRelay(server, privateKey, tls !== undefined);
  }

  /** What accepts. */
  get server(): Server {
    return this.#server;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}/derp`;
  }

  /** The next connection that nobody asked for yet. */
  connection(): Promise<FakeConnection> {
    const accepted = this.#accepted.shift();
    if (accepted !== undefined) return Promise.resolve(accepted);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** The next connection, upgraded with 101 or by fast start, its client let in. */
  async client(): Promise<FakeConnection> {
    const connection = await this.connection();
    const head = await connection.readHead();
    if (!head.includes('Derp-Fast-Start: 1')) connection.switchProtocols();
    await connection.letIn();
    return connection;
  }

  async close(): Promise<void> {
    for (const connection of this.#all) connection.socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

/** The relay's end of a connection. */
export class FakeConnection {
  readonly socket: Socket;
  readonly #privateKey: PrivateKey;
  #received: Buffer = Buffer.alloc(0);
  #ended = false;
  #onActivity: () => void = () => {};

  constructor(socket: Socket, privateKey: PrivateKey) {
    this.socket = socket;
    this.#privateKey = privateKey;
    const end = () => {
      this.#ended = true;
      this.#onActivity();
    };
    socket.on('error', end).on('close', end);
    socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#onActivity();
    });
  }

  write(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  switchProtocols(): void {
    this.write(Buffer.from('HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n'));
  }

  /** The HTTP request up to its empty line. */
  async readHead(): Promise<string> {
    const end = await this.#until(() => {
      const at = this.#received.indexOf('\r\n\r\n');
      return at < 0 ? undefined : at + 4;
    });
    return this.#take(end).toString('latin1');
  }

  async nextFrame(): Promise<Frame> {
    const end = await this.#until(() => {
      if (this.#received.length < FRAME_HEADER_LENGTH) return undefined;
      const length = FRAME_HEADER_LENGTH + readBodyLength(this.#received);
      return this.#received.length < length ? undefined : length;
    });
    const frame = this.#take(end);
    return { type: frame[0]!, body: frame.subarray(FRAME_HEADER_LENGTH) };
  }

  /** Does the relay's side of the DERP handshake. */
  async letIn(): Promise<OpenedClientInfo> {
    this.write(serverKeyFrame(this.#privateKey.publicKey));
    const opened = openClientInfo((await this.nextFrame()).body, this.#privateKey);
    this.write(sealServerInfo(opened.key, this.#privateKey, opened.box));
    return opened;
  }

  /** Resolves when the other side has closed. */
  async ended(): Promise<void> {
    await this.#until(() => (this.#ended ? true : undefined)).catch(() => {});
  }

  #take(count: number): Buffer {
    const taken = this.#received.subarray(0, count);
    this.#received = this.#received.subarray(count);
    return taken;
  }

  #until<T>(look: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#onActivity = () => {
        const found = look();
        if (found !== undefined) resolve(found);
        else if (this.#ended) reject(new Error('the client closed the connection'));
        else return;
        this.#onActivity = () => {};
      };
      this.#onActivity();
    });
  }
}
