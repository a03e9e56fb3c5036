/** Milliseconds per unit of Go's durations. */
const UNITS: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3, // U+00B5, micro sign
  μs: 1e-3, // U+03BC, Greek mu
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
};

/** Reads a duration in Go's form (`10m`, `1m30s`, `-1.5h`, `500ms`, `0`); milliseconds, or undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const [, sign, magnitude] = text.match(/^([+-]?)(.+)$/s) ?? [];
  if (magnitude === undefined) return undefined;
  if (magnitude === '0') return 0;
  const part = /(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/y;
  let milliseconds = 0;
  while (part.lastIndex < magnitude.length) {
    const match = part.exec(magnitude);
    if (match === null) return undefined;
    milliseconds += Number(match[1]) * UNITS[match[2] as string]!;
  }
  return sign === '-' ? -milliseconds : milliseconds;
}

/** Writes milliseconds as Go does: `10m0s`, `15s`, `500ms`, `0s`. */
export function formatDuration(milliseconds: number): string {
  if (milliseconds === 0) return '0s';
  if (milliseconds < 1_000) return `${milliseconds}ms`;
  const hours = Math.floor(milliseconds / UNITS.h!);
  const minutes = Math.floor((milliseconds % UNITS.h!) / UNITS.m!);
  const seconds = (milliseconds % UNITS.m!) / UNITS.s!;
  if (hours > 0) return `${hours}h${minutes}m${seconds}s`;
  return minutes > 0 ? `${minutes}m${seconds}s` : `${seconds}s`;
}
