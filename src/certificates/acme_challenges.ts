/** Answers the questions by which an ACME server makes sure that a name is ours. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { hostOfHeader } from '../host_name.js';
import type { Logger } from '../log.js';
import type { CertificateSink } from '../tls/tls_context.js';
import type { AnswerChallenge } from './acme_order.js';
import type { CertificateFolder } from './certificate_folder.js';
import { keyThenChain } from './pem.js';

const PATH_PREFIX = '/.well-known/acme-challenge/';

/** Tokens are base64url (RFC 8555, section 8.3); nothing else may become a file's name. */
const TOKEN = /^[\w-]{1,128}$/;

export interface ChallengesOptions {
  sink: CertificateSink;
  /** Answers are kept here too, as derper does, for other relays that share the folder. */
  folder: CertificateFolder;
  /** Whether we may be asked under this host (lower case, without port). */
  servesHost: (host: string) => boolean;
  logger: Logger;
}

/** Challenges under way. */
export class AcmeChallenges {
  readonly #options: ChallengesOptions;
  readonly #tokens = new Map<string, string>();
  /** Whether it was said, since the last challenge of ours, that a file cannot be read. */
  #saidAboutFile = false;

  constructor(options: ChallengesOptions) {
    this.#options = options;
  }

  /** How challenges for `name` are answered. */
  answering(name: string): AnswerChallenge {
    return (type, token, keyAuthorization) =>
      type === 'http-01' ? this.#answerHttp(token, keyAuthorization) : this.#answerTls(name, keyAuthorization);
  }

  /**
   * Answers a request of the plain port if it is below `/.well-known/acme-challenge/`: 403 for a host that is not ours, 404 for an
   * unknown token.
   *
   * @returns whether the request was an ACME challenge; it is then answered
   */
  handle(request: IncomingMessage, response: ServerResponse): boolean {
    const path = (request.url ?? '').split('?', 1)[0] as string;
    if (!path.startsWith(PATH_PREFIX)) return false;
    const host = hostOfHeader(request.headers.host ?? '') ?? '';
    if (!this.#options.servesHost(host)) {
      reply(response, 403, 'this host has no certificates here\n');
      return true;
    }
    void this.#find(path.slice(PATH_PREFIX.length)).then((answer) =>
      answer === undefined ? reply(response, 404, 'no such challenge token\n') : reply(response, 200, answer),
    );
    return true;
  }

  async #find(token: string): Promise<string | undefined> {
    const answer = this.#tokens.get(token);
    if (answer !== undefined || !TOKEN.test(token)) return answer;
    return this.#read(`${token}+http-01`);
  }

  async #read(name: string): Promise<string | undefined> {
    try {
      return await this.#options.folder.read(name);
    } catch (error) {
      // Anybody may ask, as often as they like.
      if (!this.#saidAboutFile)
        this.#options.logger.warn({}, `derper: acme: a challenge token: ${(error as Error).message}`);
      this.#saidAboutFile = true;
      return undefined;
    }
  }

  async #answerHttp(token: string, keyAuthorization: string): Promise<() => Promise<void>> {
    const file = TOKEN.test(token) ? `${token}+http-01` : undefined;
    this.#tokens.set(token, keyAuthorization);
    this.#saidAboutFile = false;
    if (file !== undefined) await this.#keep(file, keyAuthorization);
    return async () => {
      this.#tokens.delete(token);
      if (file !== undefined) await this.#drop(file);
    };
  }

  async #answerTls(name: string, keyAuthorization: string): Promise<() => Promise<void>> {
    const { crypto } = await import('acme-client');
    const authorization = {
      identifier: { type: 'dns', value: name },
      status: 'pending' as const,
      challenges: [],
      url: '',
    };
    const [key, cert] = await crypto.createAlpnCertificate(
      authorization,
      keyAuthorization,
      await crypto.createPrivateEcdsaKey(),
    );
    const certificate = { cert: cert.toString(), key: key.toString() };
    this.#options.sink.setChallenge(name, certificate);
    await this.#keep(`${name}+token`, keyThenChain(certificate));
    return async () => {
      this.#options.sink.deleteChallenge(name);
      await this.#drop(`${name}+token`);
    };
  }

  /** Answers come from memory: an unwritable folder only affects other relays that share it. */
  async #keep(name: string, text: string): Promise<void> {
    try {
      await this.#options.folder.write([{ name, text }]);
    } catch (error) {
      this.#options.logger.debug({}, `derper: acme: a challenge is not kept on disk: ${(error as Error).message}`);
    }
  }

  async #drop(name: string): Promise<void> {
    try {
      await this.#options.folder.remove(name);
    } catch (error) {
      this.#options.logger.warn({}, `derper: acme: a challenge stays on disk: ${(error as Error).message}`);
    }
  }
}

function reply(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', 'X-Content-Type-Options': 'nosniff' });
  response.end(body);
}
