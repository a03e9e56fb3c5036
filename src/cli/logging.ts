import { pino } from 'pino';
import type { Logger } from '../log.js';

export type LogFormat = 'text' | 'json';

/** What pino puts into a line besides the fields of a call. */
interface Entry {
  level: string;
  time: string;
  msg?: string;
  [field: string]: unknown;
}

/**
 * A logger that writes lines to stderr, in the order of the calls: as JSON, or as text for people.
 *
 * @param level - least level that is written
 */
export function createLogger(format: LogFormat, level: string): Logger {
  const stderr = pino.destination({ dest: 2, sync: true });
  const destination = format === 'json' ? stderr : { write: (line: string) => void stderr.write(textLine(line)) };
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
}

/** `TIME LEVEL message field=value ...` */
function textLine(line: string): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as Entry;
  const parts = [time, level.toUpperCase().padEnd(5), escapeControls(msg ?? '')];
  for (const [name, value] of Object.entries(fields)) parts.push(`${name}=${textValue(value)}`);
  return `${parts.join(' ')}\n`;
}

function textValue(value: unknown): string {
  if (typeof value === 'string') return /^[\w.:/[\]-]+$/.test(value) ? value : JSON.stringify(value);
  const message = (value as { message?: unknown } | null)?.message;
  return JSON.stringify(typeof message === 'string' ? message : value);
}

/** A stranger's text in a message must not look like another line or steer a terminal. */
function escapeControls(text: string): string {
  return text.replace(/\p{Cc}/gu, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
