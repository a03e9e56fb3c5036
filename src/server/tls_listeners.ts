/** TLS of a relay's listeners: their contexts tell the relay's key in a meta certificate, and hear which certificates are wanted. */
import type { NativeTlsServer } from '../native.js';
import type { PublicKey } from '../protocol/key.js';
import { META_CERTIFICATE_RENEWAL, makeMetaCertificate } from '../tls/meta_certificate.js';
import { nativeOf, type TlsContext } from '../tls/tls_context.js';

export class TlsListeners {
  readonly #publicKey: PublicKey;
  readonly #contexts = new Map<number, TlsContext>();
  readonly #prepared = new Set<TlsContext>();
  #meta: Promise<Uint8Array> | undefined;
  #renewal: NodeJS.Timeout | undefined;

  constructor(publicKey: PublicKey) {
    this.#publicKey = publicKey;
  }

  /** Puts the meta certificate into a context. */
  async prepare(context: TlsContext): Promise<void> {
    this.#meta ??= this.#make();
    nativeOf(context).setMeta(await this.#meta);
    this.#prepared.add(context);
  }

  /** @param tag - the listener's number */
  bind(tag: number, context: TlsContext): NativeTlsServer {
    this.#contexts.set(tag, context);
    return nativeOf(context);
  }

  wanted(tag: number, name: string): void {
    this.#contexts.get(tag)?.wanted(name);
  }

  close(): void {
    clearInterval(this.#renewal);
  }

  async #make(): Promise<Uint8Array> {
    const meta = await makeMetaCertificate(this.#publicKey);
    const renew = () => {
      this.#renew().catch((error: Error) =>
        process.emitWarning(`derplane: renewing the meta certificate: ${error.message}`),
      );
    };
    this.#renewal ??= setInterval(renew, META_CERTIFICATE_RENEWAL).unref();
    return meta;
  }

  async #renew(): Promise<void> {
    this.#meta = makeMetaCertificate(this.#publicKey);
    const meta = await this.#meta;
    for (const context of this.#prepared) nativeOf(context).setMeta(meta);
  }
}
