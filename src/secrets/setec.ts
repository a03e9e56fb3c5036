/** Reads secrets from a setec server, https://github.com/tailscale/setec, by its HTTP API. */
import { Agent as HttpsAgent } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { httpClient, isLoopback, userAgent } from '../http_client.js';
import type { Logger } from '../log.js';
import { rootsPem } from '../tls/roots.js';

export interface Secret {
  value: Buffer;
  version: number;
}

/** Milliseconds until the first retry, doubled for each further one. */
const FIRST_RETRY = 1;

/** Milliseconds: the longest time between two tries. */
const LAST_RETRY = 4_000;

/** Milliseconds for one try, redirects included. */
const TRY_TIMEOUT = 10_000;

/** Bytes of an answer; that with a mesh key has about 120. */
const MAX_ANSWER = 64 * 1024;

/** Characters of an error's text that the log shows. */
const MAX_EXCERPT = 200;

/** As many as Go's client follows: ten requests. */
const MAX_REDIRECTS = 9;

/** What the API's statuses mean. */
const STATUSES = new Map([
  [403, 'access denied'],
  [404, 'not found'],
]);

/**
 * The active version of a secret. Asks until there is an answer, however long that takes.
 *
 * @param server - an http(s) URL
 * @param signal - ends it
 * @throws the signal's reason
 */
export async function fetchSecret(server: string, name: string, logger: Logger, signal: AbortSignal): Promise<Secret> {
  const ask = await asker(server);
  for (let pause = FIRST_RETRY; ; pause = Math.min(2 * pause, LAST_RETRY)) {
    try {
      return await ask(name, AbortSignal.any([signal, AbortSignal.timeout(TRY_TIMEOUT)]));
    } catch (error) {
      signal.throwIfAborted();
      logger.warn({}, `[store] error fetching ${JSON.stringify(name)}: ${reason(error)} (retrying)`);
    }
    await sleep(pause, undefined, { signal });
  }
}

type Ask = (name: string, signal: AbortSignal) => Promise<Secret>;

async function asker(server: string): Promise<Ask> {
  const client = await httpClient();
  const url = `${server.replace(/\/$/, '')}/api/get`;
  const ca = url.startsWith('https:') ? rootsPem(process.env) : undefined;
  const httpsAgent = ca === undefined ? undefined : new HttpsAgent({ secureContext: createSecureContext({ ca }) });
  return async (name, signal) => {
    const { data, status } = await client.request<string>({
      url,
      method: 'POST',
      data: JSON.stringify({ Name: name, Version: 0, UpdateIfChanged: false }),
      headers: {
        'Content-Type': 'application/json',
        // By this header the server tells programs from browsers.
        'Sec-X-Tailscale-No-Browsers': 'setec',
        'User-Agent': userAgent(),
      },
      responseType: 'text',
      transformResponse: (text: string) => text,
      maxContentLength: MAX_ANSWER,
      maxRedirects: MAX_REDIRECTS,
      validateStatus: null,
      signal,
      ...(httpsAgent && { httpsAgent }),
      ...(isLoopback(url) && { proxy: false as const }),
    });
    if (status !== 200) throw new Error(STATUSES.get(status) ?? `request returned status ${status}: ${excerpt(data)}`);
    return readAnswer(data);
  };
}

/** The begin of a text, quoted. */
function excerpt(text: string): string {
  return JSON.stringify(text.trim().slice(0, MAX_EXCERPT));
}

function readAnswer(text: string): Secret {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (cause) {
    throw new Error('the answer is not JSON', { cause });
  }
  const secret = secretOf(answer);
  if (secret === undefined) throw new Error('the answer has no Value and Version');
  return secret;
}

/** Of `{"Value":"<base64>","Version":N}`; undefined for anything else. */
export function secretOf(json: unknown): Secret | undefined {
  const { Value: value, Version: version } = (json ?? {}) as { Value?: unknown; Version?: unknown };
  if (typeof value !== 'string' || !isBase64(value) || !Number.isInteger(version)) return undefined;
  return { value: Buffer.from(value, 'base64'), version: version as number };
}

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
}

function reason(error: unknown): string {
  const { name, message, code } = error as NodeJS.ErrnoException;
  if (name === 'CanceledError') return `no answer within ${TRY_TIMEOUT / 1_000} s`;
  return message || code || String(error);
}
