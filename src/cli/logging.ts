import { pino } from 'pino';
import type { Logger } from '../log.js';
import { LineSink } from './line_sink.js';

export type LogFormat = 'text' | 'json';

/** The fields that pino adds to those of a call. */
interface Entry {
  level: string;
  time: string;
  msg?: string;
  [field: string]: unknown;
}

/** The log of the running relay. */
export interface Log {
  logger: Logger;
  /** Writes a raw line among the logger's. */
  writeLine(line: string): void;
  /** Writes to stdout, which may fail or stall as well. */
  print(text: string): void;
  /** Lines that could not be written, since start. */
  linesLost(): number;
}

/**
 * A log on stderr: as JSON, or as text for people.
 *
 * @param level - minimum level that is written
 */
export function createLog(format: LogFormat, level: string): Log {
  const inFormat = format === 'json' ? (line: string) => line : textLine;
  const lines = new LineSink(2, (lost, error) => inFormat(lossLine(lost, error)));
  const logger = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => lines.write(inFormat(line)) },
  );
  let stdout: LineSink | undefined;
  return {
    logger,
    writeLine: (line) => lines.write(`${line}\n`),
    print: (text) => {
      stdout ??= new LineSink(1, () => '');
      stdout.write(text);
    },
    linesLost: () => lines.lost + (stdout?.lost ?? 0),
  };
}

/** The line about lost lines, in pino's format. */
function lossLine(lost: number, error: string): string {
  const reason = error === '' ? 'they were not read in time' : error;
  const msg = `${lost} log ${lost === 1 ? 'line was' : 'lines were'} lost: ${reason}`;
  return `${JSON.stringify({ level: 'warn', time: new Date().toISOString(), lost, msg })}\n`;
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
