/** An ACME server that believes everything, and fails as it is told. It speaks plain HTTP on loopback and checks no signatures. */
import { webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto as never);

const DAY = 86_400_000;

export type Route =
  | 'directory'
  | 'nonce'
  | 'account'
  | 'newOrder'
  | 'order'
  | 'authz'
  | 'challenge'
  | 'finalize'
  | 'cert';

/** How a request is answered instead: with this, or never. */
export interface Failure {
  status: number;
  headers?: Record<string, string>;
  /** An object is sent as a problem document. */
  body?: object | string;
}

interface Order {
  name: string;
  /** What the client asked for. */
  wish: Record<string, unknown>;
  isFinal: boolean;
  isAuthorized: boolean;
  certificate?: string;
}

const PROBLEM = 'urn:ietf:params:acme:error:';

export class FakeAcme {
  /** Requests that came, by route. */
  readonly requests = new Map<Route, number>();
  readonly orders: Order[] = [];
  /** Payloads of new accounts. */
  readonly accounts: Record<string, unknown>[] = [];
  /** Wall clock from which certificates count. */
  now: () => number = Date.now;
  /** Milliseconds that certificates are valid. */
  life = 90 * DAY;
  /** Kinds of challenge that are offered. */
  challenges = ['http-01', 'tls-alpn-01', 'dns-01'];
  /** Name that certificates are made for instead of the one that was asked for. */
  wrongName: string | undefined;
  /** Makes of a chain's PEM what is sent. */
  writeChain = (pem: string) => pem;
  /** Problem with which every challenge ends. */
  challengeError: object | undefined;
  readonly #failures = new Map<Route, (Failure | 'silence')[]>();
  readonly #always = new Map<Route, Failure | 'silence'>();
  readonly #waiting = new Set<() => void>();
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  static async listen(): Promise<FakeAcme> {
    const fake = new FakeAcme();
    fake.#server.listen(0, '127.0.0.1');
    await once(fake.#server, 'listening');
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get directory(): string {
    return `${this.url}/directory`;
  }

  /** The next requests of a route fail, one each. */
  failNext(route: Route, ...failures: (Failure | 'silence')[]): void {
    this.#failures.set(route, [...(this.#failures.get(route) ?? []), ...failures]);
  }

  /** All requests of a route fail, or none any more. */
  failAlways(route: Route, failure: Failure | 'silence' | undefined): void {
    if (failure === undefined) this.#always.delete(route);
    else this.#always.set(route, failure);
  }

  /** Resolves once a route has had `count` requests. */
  async requested(route: Route, count = 1): Promise<void> {
    while ((this.requests.get(route) ?? 0) < count) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  async close(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, route, id] = (request.url as string).split('/') as [string, Route, string | undefined];
    const payload = request.method === 'POST' ? payloadOf((await json(request)) as { payload: string }) : {};
    this.requests.set(route, (this.requests.get(route) ?? 0) + 1);
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
    const failure = this.#failures.get(route)?.shift() ?? this.#always.get(route);
    if (failure === 'silence') return;
    response.setHeader('Replay-Nonce', Math.random().toString(36).slice(2));
    if (failure !== undefined) fail(response, failure);
    else await this.#serve(route, Number(id), payload, response);
  }

  async #serve(route: Route, id: number, payload: Record<string, unknown>, response: ServerResponse): Promise<void> {
    const order = this.orders[id] as Order;
    switch (route) {
      case 'directory':
        return send(response, 200, this.#directory());
      case 'nonce':
        return send(response, 200, {});
      case 'account':
        this.accounts.push(payload);
        return send(response, 201, { status: 'valid' }, `${this.url}/account/0`);
      case 'newOrder':
        return this.#newOrder(payload, response);
      case 'authz':
        return send(response, 200, this.#authorization(id, order));
      case 'challenge':
        order.isAuthorized = true;
        return send(response, 200, { status: 'processing' });
      case 'finalize':
        order.isFinal = true;
        order.certificate = await this.#issue(order, payload.csr as string);
        return send(response, 200, this.#order(id, order));
      case 'order':
        return send(response, 200, this.#order(id, order));
      case 'cert':
        response
          .writeHead(200, { 'Content-Type': 'application/pem-certificate-chain' })
          .end(this.writeChain(order.certificate as string));
    }
  }

  #directory(): object {
    const { url } = this;
    return { newNonce: `${url}/nonce`, newAccount: `${url}/account`, newOrder: `${url}/newOrder` };
  }

  #newOrder(wish: Record<string, unknown>, response: ServerResponse): void {
    const [identifier] = wish.identifiers as [{ value: string }];
    const id = this.orders.push({ name: identifier.value, wish, isFinal: false, isAuthorized: false }) - 1;
    send(response, 201, this.#order(id, this.orders[id] as Order), `${this.url}/order/${id}`);
  }

  #order(id: number, order: Order): object {
    const status = order.isFinal ? 'valid' : order.isAuthorized ? 'ready' : 'pending';
    const { url } = this;
    return {
      status,
      authorizations: [`${url}/authz/${id}`],
      finalize: `${url}/finalize/${id}`,
      ...(order.isFinal && { certificate: `${url}/cert/${id}` }),
    };
  }

  #authorization(id: number, order: Order): object {
    const failed = order.isAuthorized && this.challengeError !== undefined;
    const status = failed ? 'invalid' : order.isAuthorized ? 'valid' : 'pending';
    const challenges = this.challenges.map((type) => ({
      type,
      url: `${this.url}/challenge/${id}`,
      token: `token-${id}`,
      status,
      ...(failed && { error: this.challengeError }),
    }));
    return { status, identifier: { type: 'dns', value: order.name }, challenges };
  }

  async #issue({ name }: Order, csr: string): Promise<string> {
    const request = new x509.Pkcs10CertificateRequest(Buffer.from(csr, 'base64url'));
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
    const authority = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const subject = this.wrongName ?? name;
    const certificate = await x509.X509CertificateGenerator.create({
      issuer: 'CN=Fake',
      subject: 'CN=test',
      notBefore: new Date(this.now() - 1000),
      notAfter: new Date(this.now() - 1000 + this.life),
      publicKey: await request.publicKey.export(),
      signingKey: authority.privateKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.SubjectAlternativeNameExtension([{ type: /^[\d.]+$|:/.test(subject) ? 'ip' : 'dns', value: subject }]),
      ],
    });
    return `${certificate.toString('pem')}\n`;
  }
}

/** A problem of the ACME kind. */
export function problem(type: string, detail: string, status = 400, headers: Record<string, string> = {}): Failure {
  return { status, headers, body: { type: PROBLEM + type, detail } };
}

/** What a challenge's `error` holds. */
export function challengeProblem(type: string, detail: string): object {
  return { type: PROBLEM + type, detail };
}

function payloadOf({ payload }: { payload: string }): Record<string, unknown> {
  return payload === '' ? {} : JSON.parse(Buffer.from(payload, 'base64url').toString());
}

function send(response: ServerResponse, status: number, body: object, location?: string): void {
  if (location !== undefined) response.setHeader('Location', location);
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
}

function fail(response: ServerResponse, { status, headers = {}, body = '' }: Failure): void {
  const isProblem = typeof body === 'object';
  response.writeHead(status, { ...(isProblem && { 'Content-Type': 'application/problem+json' }), ...headers });
  response.end(isProblem ? JSON.stringify(body) : body);
}
