/** The HTML of /debug/clients/. */
import { formatDuration } from '../duration.js';
import type { ClientList } from '../server/client_query.js';
import type { ClientSort, ListedClient } from '../server/client_records.js';
import type { ClientTotals } from './debug_clients.js';
import { type ClientsListRequest, clientsLink } from './debug_clients_query.js';

const EXAMPLE_KEY = 'nodekey:8cde7aa8ef94232c9d274ba5422936c639dd6d24688576d919af59277841b430';

/** Totals, and a form for each filter. */
export function clientsIndexHtml({ connections, keys }: ClientTotals): string {
  const field = (text: string, name: string, size: number, example: string) =>
    `<li><form method="GET">${text}: <input name="${name}" size="${size}" placeholder="${example}"> <button>Go</button></form></li>`;
  return `<!DOCTYPE html>
<html><head><title>DERP clients</title></head>
<body>
<h1>DERP clients</h1>
<p>${connections} connections for ${keys} node keys.</p>
<ul>
<li><form method="GET"><button name="all" value="1">List all clients</button></form></li>
${field('By IP address', 'ip', 40, '1.2.3.4')}
${field('By CIDR', 'cidr', 40, '1.2.0.0/16')}
${field('By node key', 'key', 80, EXAMPLE_KEY)}
${field('By app name', 'app', 40, 'tailcat-server')}
</ul>
<p>Results are paginated. Click a column header to sort by it or flip its direction.
Optional parameters: app=NAME (repeatable, narrows any filter), sort=key|ip|conn|connected|rx|tx|rxpkts|txpkts (leading - for descending),
limit=N, after=X (a value of the sort column to start after; for connected, Unix nanoseconds or a duration like 30m), format=json.</p>
</body></html>
`;
}

/** A page of clients. */
export function clientsListHtml(
  list: ClientsListRequest,
  found: ClientList,
  senders: (client: ListedClient) => number,
): string {
  const title = escapeText(list.title);
  const sort = `${list.descending ? '-' : ''}${list.sort}`;
  const link = found.next && escapeText(clientsLink(list, sort, { after: found.next }));
  const next = link === undefined ? '' : `<a href="${link}">Next page</a> (${found.remaining} more)`;
  return `<!DOCTYPE html>
<html><head><title>DERP clients: ${title}</title>
<style>
table { border-collapse: collapse; font-family: monospace; }
th, td { border: 1px solid #ccc; padding: 2px 6px; text-align: left; }
td.n { text-align: right; }
</style>
</head>
<body>
<h1>DERP clients: ${title}</h1>
<p><a href="./">index</a></p>
<p>Showing ${found.clients.length} of ${found.connections} matching connections (${found.keys} node keys).
${next}</p>
<table>
<tr>
${COLUMNS.map((column) => headerCell(list, ...column)).join('\n')}
<th>senders</th></tr>
${found.clients.map((client) => row(client, senders(client))).join('')}</table>
${next === '' ? '' : `<p>${next}</p>`}
</body></html>
`;
}

/** Counters sort in descending order first. */
const COLUMNS: [ClientSort, string, string?][] = [
  ['conn', 'conn#'],
  ['key', 'node key'],
  ['ip', 'remote'],
  ['connected', 'connected', '\n<th>flags</th><th>ver</th><th>app</th>'],
  ['rxpkts', 'rx pkts'],
  ['rx', 'rx bytes'],
  ['txpkts', 'tx pkts'],
  ['tx', 'tx bytes'],
];

function headerCell(list: ClientsListRequest, column: ClientSort, name: string, behind = ''): string {
  const isSorted = column === list.sort;
  const descending = isSorted ? !list.descending : /^[rt]x/.test(column);
  const link = escapeText(clientsLink(list, `${descending ? '-' : ''}${column}`));
  const arrow = isSorted ? (list.descending ? ' ▼' : ' ▲') : '';
  return `<th><a href="${link}">${name}</a>${arrow}</th>${behind}`;
}

function row(client: ListedClient, senders: number): string {
  const key = client.key.toString();
  const ip = client.address.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  const app = client.appName;
  const counts = [client.receivedPackets, client.receivedBytes, client.sentPackets, client.sentBytes, senders];
  return `<tr>
<td>${client.number}</td>
<td><a href="?key=${escapeQuery(key)}">${key}</a></td>
<td><a href="?ip=${escapeQuery(ip)}">${client.address}</a></td>
<td>${formatDuration(Math.floor(client.connectedFor / 1000) * 1000)}</td>
<td>${flags(client)}</td>
<td>${client.version}</td>
<td>${app === '' ? '' : `<a href="?app=${escapeQuery(app)}">${escapeText(app)}</a>`}</td>
${counts.map((count) => `<td class="n">${count}</td>\n`).join('')}</tr>
`;
}

function flags(client: ListedClient): string {
  const dup = `dup${client.isActive ? '-active' : ''}${client.isDisabled ? '-disabled' : ''}`;
  return [
    client.isHome ? 'home ' : '',
    client.isMeshPeer ? 'mesh ' : '',
    client.isProber ? 'prober ' : '',
    client.isNotIdeal ? 'notideal ' : '',
    client.isDuplicate ? dup : '',
  ].join('');
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;' };

/** Escapes text as Go's templates do. */
function escapeText(text: string): string {
  return text.replace(/[&<>"'+]/g, (char) => ENTITIES[char] ?? `&#${char.charCodeAt(0)};`);
}

/** Escapes a value within a link as Go's templates do. */
function escapeQuery(text: string): string {
  return [...Buffer.from(text)]
    .map((byte) => String.fromCharCode(byte))
    .join('')
    .replace(/[^A-Za-z0-9\-._~]/g, (char) => `%${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
