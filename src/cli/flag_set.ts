/**
 * Flags in the style of Go's `flag` package: `-f v`, `-f=v`, `--f v`, `--f=v`; booleans `-b`, `-b=false`; `--` or the first
 * argument that is not a flag ends them. A program's flags are one table; its types follow from it.
 */
import { parseArgs } from 'node:util';
import { rangeText } from '../checks.js';
import { formatDuration, parseDuration } from '../duration.js';
import { UsageError } from './exit.js';

interface FlagBase {
  /** Help text; a word in backquotes names the value. */
  help: string;
}

/** Go's `math.MaxInt`, as near as a double can get. */
export const MAX_INT = 2 ** 63;

/** One row of a table of flags; durations are in milliseconds. */
export type FlagSpec = FlagBase &
  (
    | { type: 'bool'; default: boolean }
    | { type: 'string'; default: string; choices?: readonly string[] }
    /** `orZero`: 0 is allowed although it is below `min`; the help says what it means. */
    | { type: 'int' | 'duration'; default: number; min?: number; max?: number; orZero?: true }
    | { type: 'float'; default: number }
  );

export type FlagTable = Readonly<Record<string, FlagSpec>>;

type ValueOf<S extends FlagSpec> = S extends { choices: readonly (infer Choice)[] }
  ? Choice
  : S['type'] extends 'bool'
    ? boolean
    : S['type'] extends 'string'
      ? string
      : number;

export interface ParsedFlags<T extends FlagTable> {
  /** The value of every flag, defaults included. */
  values: { [K in keyof T]: ValueOf<T[K]> };
  /** Names of the flags on the command line. */
  given: Set<string>;
  /** Arguments after the flags. */
  rest: string[];
  /** Whether `-h` or `-help` was given. */
  help: boolean;
}

/**
 * Reads `args` by `table`.
 *
 * @throws {@link UsageError} in Go's words: unknown flag, missing argument, bad value
 */
export function parseFlags<T extends FlagTable>(table: T, args: readonly string[]): ParsedFlags<T> {
  const { flags, rest, help } = normalise(table, args);
  const options = Object.fromEntries(
    Object.keys(table).map((name) => [name, { type: 'string', multiple: true } as const]),
  );
  const given = parseArgs({ args: flags, options, strict: true }).values;

  const values: Record<string, boolean | number | string> = {};
  for (const [name, spec] of Object.entries(table)) {
    // As in Go, every value must be valid, and the last one counts.
    values[name] =
      (given[name] as string[] | undefined)?.map((text) => parseValue(name, spec, text)).at(-1) ?? spec.default;
  }
  return { values: values as ParsedFlags<T>['values'], given: new Set(Object.keys(given)), rest, help };
}

/** Rewrites Go's forms to the unambiguous one of `parseArgs`: `--name=value`. */
function normalise(table: FlagTable, args: readonly string[]): { flags: string[]; rest: string[]; help: boolean } {
  const flags: string[] = [];
  let index = 0;
  while (index < args.length) {
    const arg = args[index]!;
    if (arg.length < 2 || !arg.startsWith('-')) break;
    index++;
    if (arg === '--') break;
    const [, name, value] = arg.match(/^--?([^=-][^=]*)(?:=(.*))?$/s) ?? [];
    if (name === undefined) throw new UsageError(`bad flag syntax: ${arg}`);
    const spec = Object.hasOwn(table, name) ? table[name] : undefined;
    if (spec === undefined) {
      if (name === 'h' || name === 'help') return { flags, rest: [], help: true };
      throw new UsageError(`flag provided but not defined: -${name}`);
    }
    if (value !== undefined) flags.push(`--${name}=${value}`);
    else if (spec.type === 'bool') flags.push(`--${name}=true`);
    else if (index < args.length) flags.push(`--${name}=${args[index++]}`);
    else throw new UsageError(`flag needs an argument: -${name}`);
  }
  return { flags, rest: args.slice(index), help: false };
}

const TRUE = ['1', 't', 'T', 'TRUE', 'true', 'True'];
const FALSE = ['0', 'f', 'F', 'FALSE', 'false', 'False'];

function parseValue(name: string, spec: FlagSpec, text: string): boolean | number | string {
  switch (spec.type) {
    case 'bool':
      if (!TRUE.includes(text) && !FALSE.includes(text)) invalid(name, text, 'parse error', 'boolean value');
      return TRUE.includes(text);
    case 'string':
      if (spec.choices && !spec.choices.includes(text)) invalid(name, text, `must be ${spec.choices.join(', ')}`);
      return text;
    case 'int':
      return inRange(name, spec, text, parseInteger(text) ?? invalid(name, text, 'parse error'), {
        format: String,
        kind: 'an integer',
      });
    case 'float':
      return parseFloatText(text) ?? invalid(name, text, 'parse error');
    case 'duration': {
      const needsUnit = 'parse error (a duration needs units, such as 10s, 1m30s or 500ms)';
      return inRange(name, spec, text, parseDuration(text) ?? invalid(name, text, needsUnit), {
        format: formatDuration,
        kind: 'a duration',
      });
    }
  }
}

/** Go's integers: decimal, 0x, 0o, 0b, 0-octal, underscores between digits. */
function parseInteger(text: string): number | undefined {
  const [, sign, digits] =
    text.match(/^([+-]?)((?:0[xX]_?[\da-fA-F]|0[oO]_?[0-7]|0[bB]_?[01]|\d)(?:_?[\da-fA-F])*)$/) ?? [];
  if (digits === undefined) return undefined;
  const plain = digits.replaceAll('_', '').replace(/^0(?=[0-7]+$)/, '0o');
  if (Number.isNaN(Number(plain))) return undefined;
  const value = BigInt(plain);
  return value >= BigInt(MAX_INT) ? undefined : Number(sign === '-' ? -value : value);
}

function parseFloatText(text: string): number | undefined {
  const infinity = text.match(/^([+-]?)inf(?:inity)?$/i);
  if (infinity) return infinity[1] === '-' ? -Infinity : Infinity;
  return /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(text) ? Number(text) : undefined;
}

function inRange(
  name: string,
  { min = -Infinity, max = Infinity, orZero = false }: { min?: number; max?: number; orZero?: boolean },
  text: string,
  value: number,
  { format, kind }: { format: (value: number) => string; kind: string },
): number {
  if ((value >= min && value <= max) || (orZero && value === 0)) return value;
  if (max === Infinity) return invalid(name, text, `must be at least ${format(min)}`);
  if (min === -Infinity) return invalid(name, text, `must be at most ${format(max)}`);
  return invalid(name, text, `${rangeText({ min, max }, kind, format)}${orZero ? ', or 0' : ''}`);
}

function invalid(name: string, text: string, reason: string, kind = 'value'): never {
  const separator = kind === 'value' ? 'for flag' : 'for';
  throw new UsageError(`invalid ${kind} ${JSON.stringify(text)} ${separator} -${name}: ${reason}`);
}
