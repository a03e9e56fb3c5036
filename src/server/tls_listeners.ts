/** TLS of a relay's listeners: their contexts tell the relay's key in a meta certificate, and hear which certificates are wanted. */
import type { Server as HttpServer } from 'node:http';
import type { NativeRelay } from '../native.js';
import type { PublicKey } from '../protocol/key.js';
import { META_CERTIFICATE_RENEWAL, makeMetaCertificate } from '../tls/meta_certificate.js';
import { nativeOf, type TlsContext, tellWanted } from '../tls/tls_context.js';
import { type Stats, TLS_ACTIVE } from './stats.js';
import { TlsRequests } from './tls_requests.js';

export class TlsListeners {
  readonly #relayId: number;
  readonly #publicKey: PublicKey;
  readonly #contexts = new Map<number, TlsContext>();
  readonly #prepared = new Set<TlsContext>();
  readonly #requests = new TlsRequests();
  #meta: Promise<Uint8Array> | undefined;
  #renewal: NodeJS.Timeout | undefined;

  constructor(relayId: number, publicKey: PublicKey) {
    this.#relayId = relayId;
    this.#publicKey = publicKey;
  }

  /** Puts the meta certificate into a context. */
  async prepare(context: TlsContext): Promise<void> {
    this.#meta ??= this.#make();
    nativeOf(context).setMeta(this.#relayId, await this.#meta);
    this.#prepared.add(context);
  }

  /**
   * @param tag - the number of a listener that listens
   * @param pages - serves its requests
   */
  bind(tag: number, context: TlsContext, pages: HttpServer | undefined): void {
    this.#contexts.set(tag, context);
    if (pages !== undefined) this.#requests.watch(pages);
  }

  /** Figures that there are only where TLS is served. */
  vars({ tlsCounts }: NativeRelay, clients: Stats): Stats {
    if (this.#contexts.size === 0) return {};
    const { accepted, rejected, upgrades12, upgrades13, greeted12, greeted13 } = tlsCounts;
    const { total, active } = this.#requests;
    const now = {
      '1.2': active['1.2'] + greeted12 + Number(clients['1.2']),
      '1.3': active['1.3'] + greeted13 + Number(clients['1.3']),
    };
    return {
      tls_listener: { counter_accepted_connections: accepted, counter_rejected_connections: rejected },
      derper_tls_request_version: { '1.2': total['1.2'] + upgrades12, '1.3': total['1.3'] + upgrades13 },
      [TLS_ACTIVE]: now,
    };
  }

  wanted(tag: number, name: string): void {
    const context = this.#contexts.get(tag);
    if (context !== undefined) tellWanted(context, name);
  }

  close(): void {
    clearInterval(this.#renewal);
    this.#requests.close();
    for (const context of this.#prepared) nativeOf(context).removeMeta(this.#relayId);
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
    for (const context of this.#prepared) nativeOf(context).setMeta(this.#relayId, meta);
  }
}
