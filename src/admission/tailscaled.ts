/** Admits the nodes that the tailscaled of this machine knows, which it tells through its LocalAPI. */
import { request } from 'node:http';
import { goString, readGoObject } from '../protocol/go_json.js';
import { PublicKey } from '../protocol/key.js';
import { type Admission, type AdmissionRequest, type AdmissionSource, ALLOWED } from './decision.js';

/** Where tailscaled listens by default. */
export const DEFAULT_SOCKET = '/var/run/tailscale/tailscaled.sock';

/** Milliseconds for one question. derper has no bound; a daemon that is well answers within some. */
const TIMEOUT = 5_000;

/** Bytes of an answer: a node with its user and capabilities has some thousands. */
const MAX_ANSWER = 1 << 20;

/** What a client of Tailscale 1.104 says that it understands; tailscaled does not check it. */
const CAPABILITY = '148';

/** An error of the LocalAPI, in the words of Tailscale's own client. */
class LocalApiError extends Error {
  /** HTTP status; 0: there was no answer. */
  readonly status: number;

  constructor(status: number, message: string, cause?: unknown) {
    super(message, { cause });
    this.status = status;
  }
}

export class TailscaledAdmission implements AdmissionSource {
  readonly name = 'tailscaled';
  readonly #socket: string;
  readonly #timeout: number;

  /**
   * @param socket - path of tailscaled's socket
   * @param timeout - milliseconds for one question
   */
  constructor(socket: string, timeout = TIMEOUT) {
    this.#socket = socket;
    this.#timeout = timeout;
  }

  async admit({ key }: AdmissionRequest, signal: AbortSignal): Promise<Admission> {
    try {
      const answer = await this.#get(`/localapi/v0/whois?addr=${encodeURIComponent(String(key))}`, signal);
      readGoObject(answer, {});
      return ALLOWED;
    } catch (error) {
      return { allow: false, text: refusalOf(error as Error, key) };
    }
  }

  /**
   * The key of this machine's own node.
   * @throws Error when tailscaled does not tell it
   */
  async ownKey(): Promise<PublicKey> {
    let key: string | undefined;
    const answer = await this.#get('/localapi/v0/status?peers=false', new AbortController().signal);
    readGoObject(answer, {
      self({ text }) {
        readGoObject(Buffer.from(text), {
          publickey(value) {
            key = goString(value);
          },
        });
      },
    });
    if (key === undefined) throw new Error('tailscaled tells no Self.PublicKey: is it logged in?');
    return PublicKey.parse(key);
  }

  /** The body of an answer of status 200. @throws LocalApiError */
  #get(path: string, signal: AbortSignal): Promise<Buffer> {
    const deadline = AbortSignal.timeout(this.#timeout);
    return new Promise((resolve, reject) => {
      const failed = (error: unknown) => {
        reject(deadline.aborted ? this.#silent(path) : this.#unreachable(path, error as NodeJS.ErrnoException));
      };
      const asked = request({
        socketPath: this.#socket,
        path,
        agent: false,
        headers: { Host: 'local-tailscaled.sock', 'Tailscale-Cap': CAPABILITY },
        signal: AbortSignal.any([signal, deadline]),
      });
      asked.on('error', failed);
      asked.on('response', (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('error', failed);
        response.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          size += chunk.length;
          if (size > MAX_ANSWER) response.destroy(new Error(`tailscaled answers more than ${MAX_ANSWER} bytes`));
        });
        response.on('end', () => {
          const body = Buffer.concat(chunks);
          const { statusCode: status = 0, statusMessage = '' } = response;
          if (status === 200) resolve(body);
          else reject(new LocalApiError(status, errorText(status, statusMessage, body)));
        });
      });
      asked.end();
    });
  }

  #silent(path: string): LocalApiError {
    return new LocalApiError(0, `tailscaled does not answer ${pathOf(path)} within ${this.#timeout / 1000} s`);
  }

  #unreachable(path: string, error: NodeJS.ErrnoException): LocalApiError {
    if (error.syscall !== 'connect') return new LocalApiError(0, error.message, error);
    return new LocalApiError(
      0,
      `Failed to connect to local Tailscale daemon for ${pathOf(path)}; not running? Error: ${error.message}`,
      error,
    );
  }
}

/** derper's words. */
function refusalOf(error: Error, key: PublicKey): string {
  const status = error instanceof LocalApiError ? error.status : 0;
  if (status === 404) return `peer ${key} not authorized (not found in local tailscaled)`;
  if (error.message.includes("invalid 'addr' parameter")) {
    return 'tailscaled version is too old (out of sync with derper binary)';
  }
  return `failed to query local tailscaled status for ${key}: ${error.message}`;
}

/** What an answer other than 200 says: the member `error` of its JSON, or all of it. */
function errorText(status: number, statusMessage: string, body: Buffer): string {
  const text = errorMember(body);
  const plain = body.toString('utf8', 0, 1_000).trim();
  if (status === 403) return `Access denied: ${text ?? plain}`;
  return text ?? `${status} ${statusMessage}: ${plain}`;
}

function errorMember(body: Buffer): string | undefined {
  let text: string | undefined;
  try {
    readGoObject(body, {
      error(value) {
        text = goString(value);
      },
    });
  } catch {
    return undefined; // not JSON, like most of tailscaled's errors
  }
  return text === '' ? undefined : text;
}

function pathOf(path: string): string {
  return path.split('?')[0]!;
}
