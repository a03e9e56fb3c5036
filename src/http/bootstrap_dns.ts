/**
 * Bootstrap DNS: the addresses of a few names over HTTP, for clients whose DNS does not work.
 *
 * Every client gets all published names at once. A client gets an unpublished name only if it asks for that name and the name's
 * rollout percentage admits the client.
 */
import { randomInt } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Checks, checkLogger, checkOptions, checkString, having } from '../checks.js';
import { guardedLogger, type Logger } from '../log.js';
import { queryValue } from '../requests/query.js';
import {
  CLOSED,
  type NameResolver,
  parseNames,
  type ResolvedName,
  resolveNames,
  systemResolver,
} from './bootstrap_names.js';
import { isInRollout } from './bootstrap_rollout.js';
import { clientAddress } from './client_address.js';
import { setSecurityHeaders } from './security_headers.js';

export interface BootstrapDnsOptions {
  /** Published names, separated by commas. Default: none. */
  names?: string;
  /** Unpublished names, separated by commas; `NAME/RECORD` takes the rollout percentage from the TXT record `RECORD`. Default: none. */
  unpublishedNames?: string;
  /** Default: no log. */
  logger?: Logger;
  /** For tests. Default: the system's resolver. */
  resolver?: NameResolver;
}

const CHECKS: Checks<BootstrapDnsOptions> = {
  names: checkString,
  unpublishedNames: checkString,
  logger: checkLogger,
  resolver: having('a resolver', 'addresses', 'texts'),
};

/** Request counts; names are those of derper's metrics, without `bootstrap_dns_`. */
export interface BootstrapDnsCounts {
  requests: number;
  published_hits: number;
  published_misses: number;
  unpublished_hits: number;
  unpublished_misses: number;
  unpublished_percent_misses: number;
  /** Distinct names that clients asked for; starts over beyond {@link MAX_QUERIED}. */
  queried_domains: number;
}

/** Milliseconds from the end of one refresh to the next, as in derper. */
const REFRESH_INTERVAL = 600_000;
/** Milliseconds that all lookups of one list may take together, as in derper. */
const LIST_DEADLINE = 60_000;
/** Distinct requested names to remember and count. */
const MAX_QUERIED = 500;
/** Significant characters of such a name; DNS names have at most 253. */
const MAX_QUERIED_LENGTH = 256;

export class BootstrapDns {
  readonly #names;
  readonly #unpublishedNames;
  readonly #logger: Logger;
  readonly #resolver: NameResolver;
  readonly #closing = new AbortController();
  readonly #queried = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  /** Published names with the results of the last refresh. */
  #published: Map<string, ResolvedName> | undefined;
  /** The same as JSON; empty until the first refresh ends. */
  #body = '';
  #unpublished = new Map<string, ResolvedName>();
  readonly #counts = {
    requests: 0,
    published_hits: 0,
    published_misses: 0,
    unpublished_hits: 0,
    unpublished_misses: 0,
    unpublished_percent_misses: 0,
  };

  /** @throws {@link DerpError} `ERR_DERP_BAD_OPTION` */
  constructor(options: BootstrapDnsOptions = {}) {
    checkOptions(options, 'options', CHECKS);
    const { names = '', unpublishedNames = '', logger, resolver = systemResolver } = options;
    this.#names = parseNames(names).map(({ name }) => ({ name, percentageRecord: undefined }));
    this.#unpublishedNames = parseNames(unpublishedNames);
    this.#logger = guardedLogger(logger);
    this.#resolver = resolver;
  }

  /** Starts the lookups: now, and then every 10 minutes. */
  start(): void {
    if (this.#names.length > 0 || this.#unpublishedNames.length > 0) void this.#refreshLoop();
  }

  /** Stops the lookups; answers no longer change. */
  close(): void {
    clearTimeout(this.#timer);
    this.#closing.abort(CLOSED);
  }

  counts(): BootstrapDnsCounts {
    return { ...this.#counts, queried_domains: this.#queried.size };
  }

  /** Answers a request for `/bootstrap-dns`. */
  readonly handle = (request: IncomingMessage, response: ServerResponse): void => {
    this.#counts.requests++;
    const name = queryValue(request.url ?? '', 'q') ?? '';
    const found = name === '' ? undefined : this.#find(name, clientAddress(request));
    const body = found ?? this.#body;
    setSecurityHeaders(response);
    response
      .writeHead(200, {
        'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(body),
        // Clients ask once, from anywhere: an open connection would cost more than it saves.
        Connection: 'close',
      })
      .end(body);
  };

  /** The answer for a client that the name's rollout admits; undefined: answer with the published names. */
  #find(name: string, address: string): string | undefined {
    this.#remember(name);
    const unpublished = this.#unpublished.get(name);
    if (unpublished !== undefined) {
      this.#counts.unpublished_hits++;
      if (isInRollout(address, unpublished.percentage)) return jsonOf(new Map([[name, unpublished]]));
      this.#counts.unpublished_percent_misses++;
    }
    if (this.#published?.has(name) === true) this.#counts.published_hits++;
    else this.#counts.unpublished_misses++;
    return undefined;
  }

  #remember(name: string): void {
    this.#queried.add(name.slice(0, MAX_QUERIED_LENGTH));
    if (this.#queried.size > MAX_QUERIED) this.#queried.clear();
  }

  async #refreshLoop(): Promise<void> {
    await this.#refresh();
    if (this.#closing.signal.aborted) return;
    this.#timer = setTimeout(() => void this.#refreshLoop(), REFRESH_INTERVAL).unref();
  }

  async #refresh(): Promise<void> {
    if (this.#names.length > 0) {
      const found = await this.#resolve(this.#names);
      if (found === undefined) return;
      // Shuffled once per refresh, so that clients do not all prefer the same address.
      for (const [name, entry] of found) found.set(name, { ...entry, addresses: shuffled(entry.addresses) });
      this.#published = found;
      this.#body = jsonOf(found);
    }
    if (this.#unpublishedNames.length > 0) {
      this.#unpublished = (await this.#resolve(this.#unpublishedNames)) ?? this.#unpublished;
    }
  }

  /** Undefined: it was closed meanwhile. */
  async #resolve(names: ReturnType<typeof parseNames>): Promise<Map<string, ResolvedName> | undefined> {
    const deadline = new AbortController();
    const late = new Error(`no answer within ${LIST_DEADLINE / 1000} s for all names`);
    const timer = setTimeout(() => deadline.abort(late), LIST_DEADLINE);
    const signal = AbortSignal.any([this.#closing.signal, deadline.signal]);
    const found = await resolveNames(names, this.#resolver, this.#logger, signal);
    clearTimeout(timer);
    return this.#closing.signal.aborted ? undefined : found;
  }
}

function shuffled(values: readonly string[]): string[] {
  const result = [...values];
  for (let last = result.length - 1; last > 0; last--) {
    const other = randomInt(last + 1);
    [result[last], result[other]] = [result[other]!, result[last]!];
  }
  return result;
}

/** As Go writes it: names sorted, tab-indented, `null` without any. */
function jsonOf(names: ReadonlyMap<string, ResolvedName>): string {
  if (names.size === 0) return 'null';
  const sorted = [...names].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return JSON.stringify(Object.fromEntries(sorted.map(([name, { addresses }]) => [name, addresses])), null, '\t');
}
