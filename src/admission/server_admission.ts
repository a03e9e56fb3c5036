/** The admission of one server: its sources, and what the rest of the server asks of them. */
import type { MessagePort } from 'node:worker_threads';
import type { Logger } from '../log.js';
import type { LimitedLog } from '../log_limit.js';
import type { PublicKey } from '../protocol/key.js';
import { AdmissionChain } from './admission.js';
import { DisallowedAppNames } from './app_names.js';
import { AdmissionDesk } from './desk.js';
import { HookAdmission } from './hook.js';
import { KeyFile } from './key_file.js';
import type { ResolvedAdmission } from './options.js';
import { TailscaledAdmission } from './tailscaled.js';
import { checkAdmissionUrl, UrlAdmission } from './url.js';

/** Milliseconds within which each source but the hook decides: they have 5 s, and the main thread may be busy. */
const SOURCE_TIME = 6_000;

/** The address that a relay asks its own admission from; derper's. */
const SELF_ADDRESS = '[::1]:0';

export interface AdmissionParts {
  logger: Logger;
  /** For lines that strangers can cause. */
  log: LimitedLog;
  /** Closes all connections of a key. */
  closePeer: (key: Uint8Array) => void;
}

export class ServerAdmission {
  /** What decides, in words, for the log; undefined: anyone may use the relay. */
  readonly summary: string | undefined;
  /** Milliseconds that a handshake waits for its decision. */
  readonly timeout: number;
  readonly #parts: AdmissionParts;
  readonly #chain: AdmissionChain;
  readonly #desk: AdmissionDesk;
  readonly #isAsked: boolean;
  readonly #keyFile: KeyFile | undefined;
  readonly #tailscaled: TailscaledAdmission | undefined;
  readonly #url: UrlAdmission | undefined;
  /** What a relay asks about its own node: derper's sources. */
  readonly #self: AdmissionChain;

  /** @throws DerpError `ERR_DERP_BAD_OPTION` for a URL or a key file that cannot be used, `ERR_DERP_CERTIFICATE` */
  constructor(options: ResolvedAdmission, parts: AdmissionParts) {
    this.#parts = parts;
    const { disallowAppNames = [], keyFile, tailscaledSocket, url, admit, admitTimeout } = options;
    const names = disallowAppNames.length === 0 ? undefined : new DisallowedAppNames(disallowAppNames);
    this.#tailscaled = tailscaledSocket === undefined ? undefined : new TailscaledAdmission(tailscaledSocket);
    this.#url = url === undefined ? undefined : this.#makeUrl(url, options);
    const hook = admit && new HookAdmission(admit, admitTimeout);
    this.#keyFile =
      keyFile === undefined
        ? undefined
        : new KeyFile({ path: keyFile, logger: parts.logger, onLeft: (keys) => void this.#disconnect(keys) });
    const sources = present([names, this.#keyFile, this.#tailscaled, this.#url, hook]);
    this.#chain = new AdmissionChain(sources);
    this.#self = new AdmissionChain(present([names, this.#tailscaled, this.#url]));
    this.#desk = new AdmissionDesk((request, signal) => this.#chain.admit(request, signal));
    this.#isAsked = sources.length > 0;
    this.timeout =
      SOURCE_TIME * present([this.#tailscaled, this.#url]).length + SOURCE_TIME + (hook ? admitTimeout : 0);
    this.summary = this.#summarise(options);
  }

  /** A port by which one handshake thread asks; undefined: no thread needs to ask. */
  connect(): MessagePort | undefined {
    return this.#isAsked ? this.#desk.connect() : undefined;
  }

  /** Reads again what can be. */
  reload(): void {
    this.#keyFile?.reload();
  }

  /** Whether there is something to read again. */
  get canReload(): boolean {
    return this.#keyFile !== undefined;
  }

  /** What keeps this machine's own node from being admitted, in derper's words; undefined: nothing, or no tailscaled is asked. */
  async check(): Promise<string | undefined> {
    if (this.#tailscaled === undefined) return undefined;
    let key: PublicKey;
    try {
      key = await this.#tailscaled.ownKey();
    } catch (error) {
      return `localClient.Status: ${(error as Error).message}`;
    }
    const self = { key, address: SELF_ADDRESS, appName: '', version: 0, isProber: true };
    const { allow, text } = await this.#self.admit(self, new AbortController().signal);
    return allow ? undefined : `verifyClient for self nodekey: ${text}`;
  }

  /** Figures by the names that `expVar()` has for them. */
  figures() {
    return {
      admission_refused: this.#chain.refused,
      admission_failed_open: this.#url?.failedOpen ?? 0,
      gauge_admission_waiting: this.#desk.waiting,
      gauge_admission_keys: this.#keyFile?.size ?? 0,
      gauge_open_to_anyone: this.summary === undefined ? 1 : 0,
    };
  }

  close(): void {
    this.#keyFile?.close();
    this.#url?.close();
    this.#desk.close();
  }

  #makeUrl(url: string, { urlFailOpen, urlCache }: ResolvedAdmission): UrlAdmission {
    checkAdmissionUrl(url, 'admission.url');
    return new UrlAdmission({
      url,
      failOpen: urlFailOpen,
      cache: urlCache,
      onFailOpen: ({ key }, error) => {
        const message = `admission controller unreachable; allowing client ${key}`;
        this.#parts.log.log('warn', 'admission', { error: error.message }, message);
      },
    });
  }

  /** Also those that are on their way to their shard with a decision from before. */
  async #disconnect(keys: readonly PublicKey[]): Promise<void> {
    await this.#desk.flushed();
    for (const key of keys) if (this.#keyFile?.has(key) === false) this.#parts.closePeer(key.bytes);
  }

  #summarise({ keyFile, tailscaledSocket, url, urlFailOpen, admit }: ResolvedAdmission): string | undefined {
    const texts = present([
      keyFile !== undefined ? `keys of ${keyFile}` : undefined,
      tailscaledSocket !== undefined ? `nodes that the tailscaled at ${tailscaledSocket} knows` : undefined,
      url !== undefined
        ? `those that the admission URL allows${urlFailOpen ? ' (anyone while it is unreachable)' : ''}`
        : undefined,
      admit !== undefined ? 'those that the hook admits' : undefined,
    ]);
    return texts.length === 0 ? undefined : texts.join(', and only ');
  }
}

function present<T>(list: readonly (T | undefined)[]): T[] {
  return list.filter((entry): entry is T => entry !== undefined);
}
