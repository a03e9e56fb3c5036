/** The result as plain aligned tables, one per kind of scenario. */
import type { Figures } from './measure.js';
import type { Results } from './results.js';
import type { Scenario } from './scenarios.js';

interface Column {
  title: string;
  /** Median over the rounds of this figure. */
  figure: (figures: Figures) => number | undefined;
  digits: number;
}

const column = (title: string, figure: Column['figure'], digits = 0): Column => ({ title, figure, digits });
const percent = (share: number | undefined) => share && share * 100;
const megabytes = (bytes: number | undefined) => bytes && bytes / 1e6;

const latencyColumns = [
  column('p50 us', (f) => f.latency?.p50, 1),
  column('p99 us', (f) => f.latency?.p99, 1),
  column('p99.9 us', (f) => f.latency?.p999, 1),
];
const shareColumns = [
  column('relay CPU %', (f) => percent(f.relayShare)),
  column('load CPU %', (f) => percent(f.loadShare)),
];
const packetColumns = [
  column('us/packet', (f) => f.cost, 2),
  column('packets/s', (f) => f.perSecond),
  column('Gbit/s', (f) => f.gigabitsPerSecond, 2),
  ...latencyColumns,
  column('drops', (f) => f.lost),
  ...shareColumns,
];

interface Section {
  title: string;
  kinds: Scenario['kind'][];
  columns: Column[];
}

const sections: Section[] = [
  { title: 'Packets, closed loop (W outstanding per sender)', kinds: ['closed'], columns: packetColumns },
  {
    title: 'Packets, open loop (latency from the time at which a packet was due)',
    kinds: ['open'],
    columns: [
      ...packetColumns,
      column('blocked %', (f) => percent(f.blocked)),
      column('behind %', (f) => percent(f.behind)),
      column('% of peak', (f) => percent(f.goodput)),
      column('RSS MB', (f) => megabytes(f.resident), 1),
    ],
  },
  {
    title: 'Connecting (TCP, TLS where said, HTTP, DERP handshake)',
    kinds: ['connect'],
    columns: [column('us/connect', (f) => f.cost, 1), column('connects/s', (f) => f.perSecond), ...shareColumns],
  },
  {
    title: 'Idle clients',
    kinds: ['idle'],
    columns: [
      column('B/client', (f) => f.cost),
      column('B/client, last 2/3', (f) => f.marginalBytes),
      column('RSS MB without', (f) => megabytes(f.residentBase), 1),
    ],
  },
  {
    title: 'Starting (from the start of the command to the first connection that is accepted)',
    kinds: ['start'],
    columns: [column('ms', (f) => f.cost)],
  },
  {
    title: 'Departures (keys that leave a shard; no sockets)',
    kinds: ['departures'],
    columns: [column('us/departure', (f) => f.cost, 2), column('longest step us', (f) => f.longestStep)],
  },
  {
    title: 'STUN (requests over IPv4, W outstanding, of one client)',
    kinds: ['stun'],
    columns: [
      column('us/answer', (f) => f.cost, 2),
      column('answers/s', (f) => f.perSecond),
      column('lost', (f) => f.lost),
      ...shareColumns,
    ],
  },
  {
    title: 'Silent connections (packets in an open loop, without and with them)',
    kinds: ['silent'],
    columns: [
      column('newcomers', (f) => f.silent?.newcomers),
      column('failed %', (f) => percent(f.silent?.failed), 1),
      column('entry ms', (f) => f.silent?.entry, 1),
      column('p50 us', (f) => f.latency?.p50, 1),
      column('p99 us', (f) => f.latency?.p99, 1),
      column('p99 us without', (f) => f.silent?.quiet.p99, 1),
      column('p99 x', (f) => f.silent?.p99Ratio, 2),
      column('reopened/s', (f) => f.silent?.reopenedPerSecond),
      column('RSS MB', (f) => megabytes(f.resident), 1),
      ...shareColumns,
    ],
  },
  {
    title: 'Packets beside pages (in an open loop, without and with requests by autocannon)',
    kinds: ['page-load'],
    columns: [
      column('requests/s', (f) => f.pages?.perSecond),
      ...latencyColumns,
      column('p99 us without', (f) => f.pages?.quiet.p99, 1),
      column('p99 x', (f) => f.pages?.p99Ratio, 2),
      column('drops', (f) => f.lost),
      ...shareColumns,
    ],
  },
  {
    title: 'Pages (autocannon)',
    kinds: ['http'],
    columns: [column('us/request', (f) => f.cost, 1), column('requests/s', (f) => f.perSecond), ...shareColumns],
  },
];

export function report(scenarios: Scenario[], peers: string[], results: Results): string {
  return sections
    .map((section) => reportSection(section, scenarios, peers, results))
    .filter((text) => text !== '')
    .join('\n');
}

function reportSection(section: Section, scenarios: Scenario[], peers: string[], results: Results): string {
  const rows: string[][] = [];
  for (const scenario of scenarios.filter(({ kind }) => section.kinds.includes(kind))) {
    for (const peer of peers) {
      if (results.of(scenario.name, peer).length > 0) rows.push(row(section.columns, scenario, peer, results));
    }
  }
  if (rows.length === 0) return '';
  const titles = ['scenario', 'relay', ...section.columns.map(({ title }) => title), 'measured', 'target', 'verdict'];
  return `${section.title}\n${align([titles, ...rows])}\n`;
}

function row(columns: Column[], scenario: Scenario, peer: string, results: Results): string[] {
  const figures = columns.map(
    ({ figure, digits }) => results.median(scenario.name, peer, figure)?.toFixed(digits) ?? '-',
  );
  const verdict = peer === 'derplane' ? results.verdict(scenario) : undefined;
  const judged = verdict ? [verdict.measured, verdict.target, verdict.reached ? 'reached' : 'MISSED'] : ['', '', ''];
  return [scenario.name, peer, ...figures, ...judged];
}

/** Text to the left in the first and last columns, figures to the right between them. */
export function align(rows: string[][], first = 2, last = 3): string {
  const widths = rows[0]!.map((_, index) => Math.max(...rows.map((cells) => cells[index]!.length)));
  const pad = (cell: string, index: number) =>
    index < first || index >= widths.length - last ? cell.padEnd(widths[index]!) : cell.padStart(widths[index]!);
  return rows.map((cells) => cells.map(pad).join('  ').trimEnd()).join('\n');
}
