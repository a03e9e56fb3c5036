/** Figures of clients by the label that admission gave them. */
import { type NativeRelay, native } from '../native.js';
import type { Stats } from './stats.js';

/** Labels with their own figures; `other` stands for all further ones. */
export const MAX_LABELS = 63;

const OTHER = 'other';

/** Names of counters by label are `label.NUMBER.FIGURE`, in the order of the numbers. */
const NAMES = native.counterNames();
const FIRST = NAMES.findIndex((name) => name.startsWith('label.1.'));
const FIGURES = NAMES.filter((name) => name.startsWith('label.1.')).map((name) => name.slice('label.1.'.length));

/** Figures by label; none while no client ever had one. `gauge_label_clients` counts what is now, the rest since start. */
export function labelFigures(relay: NativeRelay, counters: readonly BigInt64Array[]): Stats {
  const { labels, labelsRefused } = relay;
  const sum = (number: number, figure: number) => {
    const index = FIRST + (number - 1) * FIGURES.length + figure;
    return counters.reduce((total, ofShard) => total + Number(Atomics.load(ofShard, index)), 0);
  };
  const numbered = labels.map((label, index) => [label, index + 1] as const);
  // Packets and bytes show whether anybody was ever counted there, even who sent nothing: by now or by its refusal.
  const otherNumber = MAX_LABELS + 1;
  const hasOther = labelsRefused > 0 || FIGURES.some((_, figure) => sum(otherNumber, figure) !== 0);
  if (hasOther) numbered.push([OTHER, otherNumber]);
  if (numbered.length === 0) return {};
  const figures = FIGURES.map((name, figure) => [
    name === 'clients' ? 'gauge_label_clients' : `label_${name}`,
    Object.fromEntries(numbered.map(([label, number]) => [label, sum(number, figure)])),
  ]);
  return { ...Object.fromEntries(figures), label_overflow: labelsRefused };
}
