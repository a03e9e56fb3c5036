/** All figures of a bench, their medians, and how they stand against the targets. */
import type { Figures } from './measure.js';
import type { Scenario, Target } from './scenarios.js';

export interface Result {
  scenario: string;
  peer: string;
  round: number;
  figures: Figures;
}

export interface Verdict {
  target: string;
  measured: string;
  reached: boolean;
}

export class Results {
  readonly all: Result[] = [];

  add(result: Result): void {
    this.all.push(result);
  }

  of(scenario: string, peer: string): Result[] {
    return this.all.filter((result) => result.scenario === scenario && result.peer === peer);
  }

  /** Median over the rounds of one figure; undefined when no round has it. */
  median(scenario: string, peer: string, figure: (figures: Figures) => number | undefined): number | undefined {
    return median(this.of(scenario, peer).map((result) => figure(result.figures)));
  }

  /** Median over the rounds of cost(a) / cost(b), each within one round. */
  ratio(a: { scenario: string; peer: string }, b: { scenario: string; peer: string }): number | undefined {
    return median(this.ratios(a, b));
  }

  /** cost(a) / cost(b) of every round that has both. */
  ratios(a: { scenario: string; peer: string }, b: { scenario: string; peer: string }): number[] {
    const base = this.of(b.scenario, b.peer);
    return this.of(a.scenario, a.peer).flatMap((result) => {
      const other = base.find((candidate) => candidate.round === result.round);
      return other === undefined ? [] : [result.figures.cost / other.figures.cost];
    });
  }

  /** Undefined where the scenario has no target or nothing to hold against it. */
  verdict(scenario: Scenario): Verdict | undefined {
    const { target } = scenario;
    if (target === undefined) return undefined;
    const measured = this.#measured(scenario.name, target);
    if (measured === undefined) return undefined;
    const reached = 'atLeast' in target ? measured >= target.atLeast : measured <= target.atMost;
    return { target: describeTarget(target), measured: describe(target, measured), reached };
  }

  #measured(scenario: string, target: Target): number | undefined {
    const ours = { scenario, peer: 'derplane' };
    switch (target.kind) {
      case 'go-ratio':
        return this.ratio({ scenario, peer: 'go' }, ours);
      case 'scenario-ratio':
        return this.ratio(ours, { scenario: target.scenario, peer: 'derplane' });
      case 'bytes':
      case 'millis':
        return this.median(scenario, 'derplane', (figures) => figures.cost);
      case 'goodput':
        return this.median(scenario, 'derplane', (figures) => figures.goodput);
      case 'p99-ratio':
        return this.median(scenario, 'derplane', (figures) => figures.pages?.p99Ratio);
      case 'failed-newcomers':
        return this.median(scenario, 'derplane', (figures) => figures.silent?.failed);
    }
  }
}

function describeTarget(target: Target): string {
  const bound =
    'atLeast' in target ? `>= ${describe(target, target.atLeast)}` : `<= ${describe(target, target.atMost)}`;
  return target.kind === 'scenario-ratio' ? `${bound} of ${target.scenario}` : bound;
}

function describe(target: Target, value: number): string {
  switch (target.kind) {
    case 'go-ratio':
      return `${value.toFixed(2)}x Go`;
    case 'scenario-ratio':
      return `${value.toFixed(2)}x`;
    case 'p99-ratio':
      return `${value.toFixed(2)}x p99`;
    case 'bytes':
      return `${Math.round(value)} B`;
    case 'millis':
      return `${Math.round(value)} ms`;
    case 'goodput':
      return `${Math.round(value * 100)}%`;
    case 'failed-newcomers':
      return `${(value * 100).toFixed(1)}% refused`;
  }
}

export function median(values: (number | undefined)[]): number | undefined {
  const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  const middle = sorted.length / 2;
  if (sorted.length === 0) return undefined;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)] : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
