import { formatDuration } from '../duration.js';
import { type FlagSpec, type FlagTable, MAX_INT } from './flag_set.js';

/** The usage of a program, in the layout of Go's `flag` package; ends in a newline. */
export function usage(program: string, table: FlagTable): string {
  const rows = Object.keys(table)
    .sort()
    .map((name) => row(name, table[name]!));
  return `Usage of ${program}:\n${rows.join('')}`;
}

function row(name: string, spec: FlagSpec): string {
  const valueName = spec.help.match(/`(.+?)`/)?.[1] ?? spec.type;
  const help = spec.help.replaceAll('`', '') + defaultOf(spec);
  return `  -${name}${spec.type === 'bool' ? '' : ` ${valueName}`}\n    \t${help}\n`;
}

/** Like Go's, silent about zero values. */
function defaultOf(spec: FlagSpec): string {
  if (spec.default === '' || spec.default === 0 || spec.default === false) return '';
  switch (spec.type) {
    case 'string':
      return ` (default ${JSON.stringify(spec.default)})`;
    case 'duration':
      return ` (default ${formatDuration(spec.default)})`;
    case 'float':
      return ` (default ${spec.default === Infinity ? '+Inf' : spec.default})`;
    case 'int':
      return ` (default ${spec.default === MAX_INT ? '9223372036854775807' : spec.default})`;
    case 'bool':
      return ' (default true)';
  }
}
