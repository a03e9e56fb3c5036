/** Dispatches events of shards and handshake threads to their handlers or to the log. */
import { HANDSHAKE_FAILURES, type HandshakeFailure } from '../handshake/messages.js';
import type { LimitedLog } from '../log_limit.js';
import type { NativeRelay, RelayEvent } from '../native.js';
import { PublicKey } from '../protocol/key.js';
import { isRefusalCode, RefusedRequest } from '../requests/refusal.js';
import type { Clients } from './clients.js';
import type { ConsistencyChecks } from './consistency_checks.js';
import type { EmbeddedConnections } from './embedded.js';
import type { Forwarders } from './forwarders.js';
import { MAX_LABELS } from './labels.js';
import type { Mesh } from './mesh.js';
import type { PageConnections } from './page_connections.js';
import type { ServerEvents } from './server_events.js';
import type { TlsListeners } from './tls_listeners.js';
import type { Traffic } from './traffic.js';

/** Who hears of events. */
export interface Hearers {
  relay: NativeRelay;
  log: LimitedLog;
  forwarders: Forwarders;
  checks: ConsistencyChecks;
  traffic: Traffic;
  clients: Clients;
  pages: PageConnections;
  tls: TlsListeners;
  mesh: Mesh;
  embedded: EmbeddedConnections;
  isClosing: () => boolean;
  /** Listeners of the server. */
  tell: Tell;
  /** Whether listeners hear of clients that connect or leave. */
  tellsClients: () => boolean;
}

/** Calls the listeners of an event. */
export type Tell = <Event extends keyof ServerEvents>(event: Event, ...args: ServerEvents[Event]) => void;

export function dispatch(events: RelayEvent[], hearers: Hearers): void {
  for (const event of events) {
    try {
      handle(event, hearers);
    } catch (error) {
      // An embedder's HTTP server threw: the other events of the batch are not to blame.
      const message = `derper: handling a ${event.type} event: ${(error as Error).message}`;
      hearers.log.log('error', `event ${event.type}`, {}, message);
      if (event.type === 'http') hearers.relay.discard(event.id);
    }
  }
}

function handle(event: RelayEvent, hearers: Hearers): void {
  switch (event.type) {
    case 'forward':
      void hearers.forwarders.forward(event.source, event.destination, event.packet);
      break;
    case 'check':
      hearers.checks.take(event.ticket, event.shard, event.violations);
      break;
    case 'traffic':
      hearers.traffic.take(event.ticket, event.records, event.last);
      break;
    case 'clients':
      hearers.clients.take(event);
      break;
    case 'labels-full':
      hearers.log.log(
        'warn',
        'labels',
        { label: event.label },
        `derper: more than ${MAX_LABELS} labels of clients; label ${JSON.stringify(event.label)} and further ones are counted as "other"`,
      );
      break;
    case 'http':
      handleHttp(event, hearers);
      break;
    case 'failed':
      handleFailed(event, hearers);
      break;
    case 'wanted':
      hearers.tls.wanted(event.listener, event.name);
      break;
    case 'link':
      hearers.mesh.linkUp(event.id, event.peers);
      break;
    case 'connected':
      handleConnected(event, hearers);
      break;
    case 'closed':
      handleClosed(event, hearers);
      break;
  }
}

type EventOf<Type extends RelayEvent['type']> = Extract<RelayEvent, { type: Type }>;

/** Handles a connection that is not a DERP upgrade. */
function handleHttp(event: EventOf<'http'>, { relay, log, pages, isClosing }: Hearers): void {
  const { id, remote, malformed } = event;
  const refused = isRefusalCode(malformed) ? new RefusedRequest(malformed) : undefined;
  if (refused !== undefined) log.log('debug', 'malformed', { remote }, `derp: ${remote}: ${refused.message}`);
  if (isClosing()) relay.discard(id);
  else if (refused !== undefined) pages.refuse(id, event.listener, refused.refusal);
  else pages.serve(id, event.listener, remote);
}

/** A handshake that came to nothing. */
function handleFailed(event: EventOf<'failed'>, { log, embedded }: Hearers): void {
  const failure = HANDSHAKE_FAILURES[event.failure];
  const level = failure === 'internal' ? 'error' : isForOperators(failure) ? 'info' : 'debug';
  const what = failedLine(failure, event);
  log.log(level, `failed ${failure}`, { remote: event.remote, failure }, what);
  if (event.notify) embedded.ended(event.id);
}

/** Whether a client did something wrong: connections that only end tell an operator nothing. */
function isForOperators(failure: HandshakeFailure | undefined): boolean {
  return failure === 'tls' || failure === 'refused' || failure?.startsWith('bad_') === true;
}

/** derper's words. */
function failedLine(failure: HandshakeFailure | undefined, { remote, text }: EventOf<'failed'>): string {
  if (failure === 'tls') return `http: TLS handshake error from ${remote}: ${text}`;
  if (failure === 'refused') return `derp: ${remote}: ${text}`;
  return `derp: ${remote}: receive client key: ${text}`;
}

/** A client that was let in. */
function handleConnected(event: EventOf<'connected'>, { tell }: Hearers): void {
  tell('clientConnected', {
    id: event.id,
    key: PublicKey.fromBytes(event.key),
    address: event.remote,
    isMeshPeer: event.mesh,
    isProber: event.prober,
    isNotIdeal: event.notIdeal,
  });
}

/** A client or a link that ended. */
function handleClosed(event: EventOf<'closed'>, { log, mesh, embedded, tell, tellsClients }: Hearers): void {
  const byOther = event.reason === 'eof' || event.reason === 'reset';
  if (mesh.connectionEnded(event.id, { reason: event.text, byOther, peers: event.peers })) return;
  const key = PublicKey.fromBytes(event.key);
  log.log(
    'debug',
    'closed',
    { remote: event.remote, reason: event.reason },
    `derp client ${event.remote}${key.shortString()}: ${event.text}`,
  );
  if (event.notify) embedded.ended(event.id);
  if (!tellsClients()) return;
  const { id, remote: address, reason, text } = event;
  tell('clientGone', { id, key, address, reason, text });
}
