/** `npm run bench`: runs the scenarios against derplane and, where Go is present, against Go's derper; prints tables. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { revisionPeer } from './against.js';
import { compare, reportComparison } from './comparison.js';
import { measure } from './measure.js';
import { bare, derplane, findGo, type Peer } from './peers.js';
import { canPin } from './process.js';
import { report } from './report.js';
import { Results } from './results.js';
import { type Scenario, scenarios } from './scenarios.js';

const usage = `usage: npm run bench -- [options]

  --quick             2 rounds of 1 second, a part of the TLS scenarios; with --against 4 rounds
  --against REV       builds that commit and takes turns with it, instead of Go's derper; at the end the ratio of the costs
  --fail-if-worse     with --against: exit code 1 when a row is worse by more than 2% beyond the noise
  --rounds N          rounds; each runs every scenario once against every relay (default 5)
  --seconds S         measured seconds of a traffic run (default 2)
  --only REGEX        scenarios whose name matches, optional ones included
  --all               optional scenarios too (flatness from 20 to 9,900 clients)
  --list              print the scenarios' names and end
  --no-go             without the Go derper
  --no-derplane       without derplane
  --bare              also a forwarder that only moves packets: what the machine allows
  --json FILE         every figure of every round as JSON
  --profile           perf record of the relay in the first round, to .cache/bench/
  --relay-cores LIST  cores of the relay, as taskset takes them (default 0)
  --load-cores LIST   cores of the load (default 1)
  -h, --help          this text
`;

const values = parseOptions();

const capacities = new Map<string, number>();
const profileFolder = fileURLToPath(new URL('../../.cache/bench/', import.meta.url));

if (values.help) {
  process.stdout.write(usage);
} else if (values.list) {
  for (const scenario of scenarios) console.log(scenario.name);
} else {
  await main();
}

function parseOptions() {
  try {
    return parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        seconds: { type: 'string' },
        only: { type: 'string' },
        against: { type: 'string' },
        'fail-if-worse': { type: 'boolean', default: false },
        all: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        'no-go': { type: 'boolean', default: false },
        bare: { type: 'boolean', default: false },
        'no-derplane': { type: 'boolean', default: false },
        json: { type: 'string' },
        profile: { type: 'boolean', default: false },
        'relay-cores': { type: 'string', default: '0' },
        'load-cores': { type: 'string', default: '1' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }).values;
  } catch (error) {
    return refuse((error as Error).message);
  }
}

/** A comparison needs as many rounds in either order. */
function defaultRounds(): string {
  if (values.against === undefined) return values.quick ? '2' : '5';
  return values.quick ? '4' : '8';
}

/** Ends the bench with one line: what was asked for cannot be done. */
function refuse(message: string): never {
  console.error(`bench: ${message}; npm run bench -- --help shows the options`);
  process.exit(2);
}

async function main(): Promise<void> {
  const rounds = positive('rounds', values.rounds ?? defaultRounds());
  const seconds = positive('seconds', values.seconds ?? (values.quick ? '1' : '2'));
  const chosen = choose();
  const peers = await choosePeers();
  if (values.profile) prepareProfiles();
  printMachine(rounds, seconds);
  const results = new Results();
  let failures = 0;
  for (let round = 1; round <= rounds; round++) {
    for (const scenario of chosen) {
      failures += await runScenario(scenario, round % 2 === 0 ? peers.toReversed() : peers, round, seconds, results);
    }
  }
  process.stdout.write(
    `\n${report(
      chosen,
      peers.map((peer) => peer.name),
      results,
    )}`,
  );
  const reference = peers.find((peer) => peer.reference);
  if (reference !== undefined) failures += printComparison(chosen, reference, results);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results.all, null, 1)}\n`);
  if (failures > 0) {
    console.error(`bench: ${failures} runs or rows failed or found faults, see above`);
    process.exitCode = 1;
  }
}

/** Returns how many rows are to fail the bench. */
function printComparison(chosen: Scenario[], reference: Peer, results: Results): number {
  const rows = compare(chosen, derplane.name, reference.name, results);
  process.stdout.write(`\n${reportComparison(rows, derplane.name, reference.name)}`);
  return values['fail-if-worse'] ? rows.filter(({ verdict }) => verdict === 'WORSE').length : 0;
}

/** One round of one scenario; returns how many of its runs failed or found something that a relay must never do. */
async function runScenario(
  scenario: Scenario,
  peers: Peer[],
  round: number,
  seconds: number,
  results: Results,
): Promise<number> {
  let failures = 0;
  for (const peer of peers.filter((candidate) => canRun(candidate, scenario))) {
    const label = `round ${round}  ${scenario.name}  ${peer.name}`;
    try {
      const figures = await measure(scenario, peer, {
        relayCores: values['relay-cores'],
        loadCores: values['load-cores'],
        seconds,
        capacities,
        ...(values.profile && round === 1 ? { profile: profileFile(scenario, peer) } : {}),
      });
      results.add({ scenario: scenario.name, peer: peer.name, round, figures });
      if (figures.faults.length > 0 && !peer.reference) failures++;
      console.error([`${label}  ${figures.cost.toFixed(2)}`, ...figures.faults].join('  FAULT: '));
    } catch (error) {
      if (!peer.reference) failures++;
      console.error(`${label}  FAILED: ${(error as Error).message}`);
    }
  }
  return failures;
}

function canRun(peer: Peer, scenario: Scenario): boolean {
  const ownOnly = scenario.shards > 1 || 'mesh' in scenario;
  if (ownOnly && !peer.sharded) return false;
  if (scenario.kind === 'http' || scenario.kind === 'page-load') return peer !== bare;
  // Runs inside of the load, which is the working tree's.
  if (scenario.kind === 'departures') return peer === derplane;
  const isCommand = scenario.kind === 'start' || scenario.kind === 'stun';
  return !isCommand || peer.command !== undefined;
}

function choose(): Scenario[] {
  const { only, quick, all } = values;
  const pattern = only === undefined ? undefined : parsePattern(only);
  const chosen = scenarios.filter(({ name, optional, thorough }) =>
    pattern ? pattern.test(name) : (all || !optional) && !(quick && thorough),
  );
  if (chosen.length === 0) refuse(`--only ${only}: no scenario has such a name, --list shows them`);
  return chosen;
}

function parsePattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    return refuse(`--only: ${(error as Error).message}`);
  }
}

async function choosePeers(): Promise<Peer[]> {
  if (values['fail-if-worse'] && values.against === undefined) refuse('--fail-if-worse: needs --against');
  if (values.against !== undefined) {
    if (values['no-derplane']) refuse('--against compares with derplane, which --no-derplane leaves out');
    return [derplane, chooseReference(values.against), ...(values.bare ? [bare] : [])];
  }
  const go = values['no-go'] ? undefined : await findGo();
  if (!go && !values['no-go'])
    console.error('bench: no Go here: without the Go derper there are no ratios and no verdicts on them');
  const peers = [...(values['no-derplane'] ? [] : [derplane]), ...(go ? [go] : []), ...(values.bare ? [bare] : [])];
  if (peers.length === 0) refuse('no relay is left to measure');
  return peers;
}

function chooseReference(revision: string): Peer {
  try {
    return revisionPeer(revision);
  } catch (error) {
    return refuse((error as Error).message);
  }
}

function printMachine(rounds: number, seconds: number): void {
  const model = cpus()[0]?.model ?? 'unknown processor';
  console.log(
    `${model}, ${availableParallelism()} cores, Node ${process.version}; median of ${rounds} rounds of ${seconds} s`,
  );
  if (!canPin) console.error('bench: no taskset here: relay and load share cores, figures are worth less');
}

function prepareProfiles(): void {
  if (spawnSync('perf', ['--version'], { stdio: 'ignore' }).status !== 0)
    refuse('--profile: needs perf, which is not here');
  mkdirSync(profileFolder, { recursive: true });
  console.error(`bench: profiles go to ${profileFolder}; show one with perf report -i FILE`);
}

function profileFile(scenario: Scenario, peer: Peer): string {
  return `${profileFolder}${scenario.name}-${peer.name}.perf`.replaceAll(/[ =,%]+/g, '_');
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) refuse(`--${name} ${text}: needs a number above 0`);
  return value;
}
