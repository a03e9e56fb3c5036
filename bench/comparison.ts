/** How the working tree stands against another commit: for each scenario the ratio of the costs within each round, and its spread. */
import { align } from './report.js';
import { median, type Results } from './results.js';
import type { Scenario } from './scenarios.js';

/** A row may cost this much more than the other commit. */
const ALLOWED = 1.02;
/** Standard errors on either side of the mean: about 95% of what chance alone does. */
const ERRORS = 2;

export interface Comparison {
  scenario: string;
  /** Medians over the rounds. */
  ours: number;
  theirs: number;
  /** Median of ours / theirs within each round. */
  ratio: number;
  /** Half of the interval around the ratio that chance explains; undefined with one round. */
  noise: number | undefined;
  verdict: '' | 'worse, or noise' | 'WORSE';
}

/** Scenarios that both relays ran. */
export function compare(scenarios: Scenario[], ours: string, theirs: string, results: Results): Comparison[] {
  return scenarios.flatMap(({ name }) => {
    const ratios = results.ratios({ scenario: name, peer: ours }, { scenario: name, peer: theirs });
    const ratio = median(ratios);
    if (ratio === undefined) return [];
    const cost = (peer: string) => results.median(name, peer, (figures) => figures.cost)!;
    const noise = noiseOf(ratios);
    return [{ scenario: name, ours: cost(ours), theirs: cost(theirs), ratio, noise, verdict: verdictOf(ratio, noise) }];
  });
}

function noiseOf(ratios: number[]): number | undefined {
  if (ratios.length < 2) return undefined;
  const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
  const variance = ratios.reduce((sum, ratio) => sum + (ratio - mean) ** 2, 0) / (ratios.length - 1);
  return ERRORS * Math.sqrt(variance / ratios.length);
}

function verdictOf(ratio: number, noise: number | undefined): Comparison['verdict'] {
  if (ratio <= ALLOWED) return '';
  return noise !== undefined && ratio - noise > ALLOWED ? 'WORSE' : 'worse, or noise';
}

export function reportComparison(rows: Comparison[], ours: string, theirs: string): string {
  const titles = ['scenario', ours, theirs, 'ratio', '+-', 'verdict'];
  const cells = rows.map(({ scenario, ours: a, theirs: b, ratio, noise, verdict }) => [
    scenario,
    a.toFixed(2),
    b.toFixed(2),
    ratio.toFixed(3),
    noise?.toFixed(3) ?? '-',
    verdict,
  ]);
  return `Cost of ${ours} / cost of ${theirs} (below 1: ${ours} is cheaper; WORSE: more than 2% beyond the noise)\n${align([titles, ...cells], 1, 1)}\n`;
}
