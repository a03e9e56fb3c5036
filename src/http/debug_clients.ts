/** /debug/clients/: who is connected, as JSON and as a page. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { DerpError } from '../errors.js';
import type { ClientList, ClientQuery } from '../server/client_query.js';
import type { ListedClient } from '../server/client_records.js';
import { sendText } from './answers.js';
import { clientsIndexHtml, clientsListHtml } from './debug_clients_html.js';
import { BadQuery, type ClientsListRequest, clientsLink, readClientsRequest } from './debug_clients_query.js';

/** What the page needs from a relay; {@link Server} implements it. */
export interface ClientsSource {
  clients(query: ClientQuery): Promise<ClientList>;
}

/** Totals of a relay. */
export interface ClientTotals {
  connections: number;
  keys: number;
}

export interface ClientsPageOptions {
  relay: ClientsSource;
  totals: () => ClientTotals;
  /** Whether to show the number of senders. */
  countsSenders: boolean;
  /** Sends a page with the headers of debug pages. */
  send: (response: ServerResponse, type: string, body: string, status?: number) => void;
}

const NOTHING: ClientList = { connections: 0, keys: 0, remaining: 0, clients: [], next: undefined };
const HTML = 'text/html; charset=utf-8';
const JSON_TYPE = 'application/json';

/** Answers a request. */
export async function sendClients(
  { relay, totals, countsSenders, send }: ClientsPageOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = request.url ?? '';
  const mark = url.indexOf('?');
  try {
    const { asJson, list } = readClientsRequest(mark < 0 ? '' : url.slice(mark), Date.now());
    if (list === undefined) {
      const { connections: conns, keys } = totals();
      if (asJson) send(response, JSON_TYPE, `${JSON.stringify({ conns, keys })}\n`);
      else send(response, HTML, clientsIndexHtml({ connections: conns, keys }));
      return;
    }
    const found = list.matchesNothing ? NOTHING : await relay.clients(list.query);
    const senders = ({ uniqueSenders }: ListedClient) => (countsSenders ? uniqueSenders : 0);
    if (asJson) send(response, JSON_TYPE, clientsJson(list, found, senders));
    else send(response, HTML, clientsListHtml(list, found, senders));
  } catch (error) {
    if (error instanceof BadQuery) send(response, 'text/plain; charset=utf-8', `${error.message}\n`, 400);
    else if (error instanceof DerpError && error.code === 'ERR_DERP_BUSY') sendText(response, 503, error.message);
    else throw error;
  }
}

function clientsJson(list: ClientsListRequest, found: ClientList, senders: (client: ListedClient) => number): string {
  const sort = `${list.descending ? '-' : ''}${list.sort}`;
  const page = {
    query: list.title,
    conns: found.connections,
    keys: found.keys,
    remaining: found.remaining,
    ...(found.next && { next: clientsLink(list, sort, { after: found.next, asJson: true }) }),
    clients: found.clients.map((client) => clientJson(client, senders(client))),
  };
  return `${escaped(JSON.stringify(page, null, '\t'))}\n`;
}

function clientJson(client: ListedClient, senders: number): object {
  return {
    connNum: client.number,
    key: client.key.toString(),
    remote: client.address,
    connectedAt: timeText(client.connectedAt),
    connected: Math.floor(client.connectedFor / 1000) * 1e9,
    active: client.isActive,
    dup: client.isDuplicate,
    disabled: client.isDisabled,
    home: client.isHome,
    meshPeer: client.isMeshPeer,
    notIdeal: client.isNotIdeal,
    prober: client.isProber,
    version: client.version,
    appName: client.appName,
    rxPkts: client.receivedPackets,
    rxBytes: client.receivedBytes,
    txPkts: client.sentPackets,
    txBytes: client.sentBytes,
    senders,
  };
}

/** RFC 3339 in UTC, without zeros at the end of the fraction. */
function timeText(nanoseconds: bigint): string {
  const seconds = new Date(Number(nanoseconds / 1_000_000_000n) * 1000).toISOString().slice(0, -5);
  const fraction = (nanoseconds % 1_000_000_000n).toString().padStart(9, '0').replace(/0+$/, '');
  return `${seconds}${fraction === '' ? '' : `.${fraction}`}Z`;
}

/** Escapes as Go does, so that JSON is safe inside HTML. */
function escaped(json: string): string {
  return json.replace(/[<>&\u2028\u2029]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
