/** A sink of certificates that answers TLS handshakes with Node's own TLS: what the relay's listener is to a source of certificates. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import tls from 'node:tls';
import type { CertificateText } from '../../dist/tls/tls_context.js';
import { RecordingSink } from './recording_sink.js';

/** ALPN protocol of TLS-ALPN-01 validations. */
const ACME_PROTOCOL = 'acme-tls/1';

export class TlsSink extends RecordingSink {
  /** Called once per expected name for which a handshake waits. */
  onWanted: (name: string) => void = () => {};
  /** Whether TLS-ALPN-01 validations fail. */
  hidesChallenges = false;
  readonly #asked = new Set<string>();
  readonly #tls: tls.Server;
  readonly #acme: tls.Server;
  readonly #listener: Server;

  private constructor() {
    super();
    this.#tls = tls.createServer({
      ALPNProtocols: ['http/1.1'],
      SNICallback: answer((name) => this.#contextFor(name)),
    });
    this.#acme = tls.createServer({
      ALPNProtocols: [ACME_PROTOCOL],
      SNICallback: answer(async (name) => contextOf(this.hidesChallenges ? undefined : this.challenges.get(name))),
    });
    for (const server of [this.#tls, this.#acme]) {
      server.on('tlsClientError', () => {});
      server.on('secureConnection', (socket) => socket.on('error', () => {}).end());
    }
    this.#listener = createServer((socket) => this.#sort(socket));
  }

  static async listen(): Promise<TlsSink> {
    const sink = new TlsSink();
    sink.#listener.listen(0, '127.0.0.1');
    await once(sink.#listener, 'listening');
    return sink;
  }

  get port(): number {
    return (this.#listener.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#listener.close();
    await once(this.#listener, 'close');
  }

  override expect(name: string): void {
    this.#asked.delete(name);
    super.expect(name);
  }

  override unexpect(name: string): void {
    this.#asked.delete(name);
    super.unexpect(name);
  }

  /** The certificate that a client with this SNI is answered with; rejects when the handshake fails. Without SNI: for 127.0.0.1. */
  async handshake(servername?: string): Promise<tls.PeerCertificate> {
    const socket = tls.connect({
      host: '127.0.0.1',
      port: this.port,
      rejectUnauthorized: false,
      servername: servername ?? LOCAL_ADDRESS,
      ALPNProtocols: ['http/1.1'],
    });
    try {
      await once(socket, 'secureConnect');
      return socket.getPeerCertificate();
    } finally {
      socket.destroy();
    }
  }

  /** Validations and clients go to servers of their own: Node tells who chooses a certificate nothing about ALPN. */
  #sort(socket: Socket): void {
    socket.on('error', () => {});
    socket.once('data', (hello: Buffer) => {
      socket.pause();
      socket.unshift(hello);
      (hello.includes(ACME_PROTOCOL) ? this.#acme : this.#tls).emit('connection', socket);
    });
  }

  /** As the relay's own sink does it: a certificate of the name, else wait where one is expected, else that for everybody. */
  async #contextFor(servername: string): Promise<tls.SecureContext | undefined> {
    const isAddress = servername === LOCAL_ADDRESS;
    const name = isAddress ? '127.0.0.1' : servername.toLowerCase();
    const isExpected = () => this.expected.has(name) || (isAddress && this.expected.has('*'));
    while (!this.certificates.has(name) && isExpected()) {
      const before = this.calls.length;
      if (!this.#asked.has(name)) {
        this.#asked.add(name);
        this.onWanted(name);
      }
      await this.until(() => this.calls.length > before);
    }
    return contextOf((this.certificates.get(name) ?? this.certificates.get('*'))?.[0]);
  }
}

/** Node calls nobody for a handshake without SNI, so that one comes under this name. */
const LOCAL_ADDRESS = 'no-sni.invalid';

function contextOf(certificate: CertificateText | undefined): tls.SecureContext | undefined {
  return certificate && tls.createSecureContext(certificate);
}

type Callback = (error: Error | null, context?: tls.SecureContext) => void;

function answer(choose: (name: string) => Promise<tls.SecureContext | undefined>) {
  return (name: string, callback: Callback) => {
    choose(name).then((context) => {
      if (context) callback(null, context);
      else callback(new Error(`no certificate for ${name}`));
    }, callback);
  };
}
