/**
 * What the public entries take: each check throws a `DerpError` that names the argument, what it got and what it needs. Checks that run
 * for every packet are plain comparisons; those of options are tables, one row an option.
 */
import { Server as NetServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { closestMatch } from 'leven';
import { DerpError } from './errors.js';

/** Checks one value; `name` is what messages call it. */
export type Check = (value: unknown, name: string) => void;

/** The check of each option; a group of options is a table itself. */
export type Checks<Options> = { readonly [Name in keyof Options]-?: Check | Checks<NonNullable<Options[Name]>> };

/** Integers from `min` to `max`. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

/** A `DerpError` `ERR_DERP_BAD_OPTION`. */
export function badOption(message: string, cause?: unknown): DerpError {
  return new DerpError('ERR_DERP_BAD_OPTION', message, cause === undefined ? {} : { cause });
}

/** What a value out of its range is answered with. */
export function rangeText(
  { min, max }: Range,
  kind = 'an integer',
  format: (value: number) => string = String,
): string {
  return `must be ${kind} from ${format(min)} to ${format(max)}`;
}

/** An argument as messages show it: short, and never what a text or an object holds, which may be a secret. */
export function shown(value: unknown): string {
  if (value === null || value === undefined || typeof value === 'number' || typeof value === 'boolean') {
    return String(value);
  }
  if (typeof value !== 'object') return `a ${typeof value}`;
  if (Array.isArray(value)) return 'an array';
  const name = (value as object).constructor?.name;
  return name === undefined || name === 'Object' ? 'an object' : `${/^[AEIO]/.test(name) ? 'an' : 'a'} ${name}`;
}

/** @throws DerpError `ERR_DERP_BAD_OPTION`: `name` must be `wanted`, and is something else */
export function wrong(name: string, value: unknown, wanted: string, advice = ''): never {
  throw badOption(`${name}: must be ${wanted}, not ${shown(value)}${advice === '' ? '' : `; ${advice}`}`);
}

export function checkString(value: unknown, name: string): asserts value is string {
  if (typeof value !== 'string') wrong(name, value, 'a string');
}

export function checkBoolean(value: unknown, name: string): asserts value is boolean {
  if (typeof value !== 'boolean') wrong(name, value, 'true or false');
}

export function checkFunction(value: unknown, name: string): void {
  if (typeof value !== 'function') wrong(name, value, 'a function');
}

/** A number as a name for messages stands in front of it: `port 70000: must be ...`. */
export function checkInteger(value: unknown, name: string, range: Range): asserts value is number {
  if (typeof value !== 'number') wrong(name, value, `an integer from ${range.min} to ${range.max}`);
  if (Number.isInteger(value) && value >= range.min && value <= range.max) return;
  throw badOption(`${name} ${value}: ${rangeText(range)}`);
}

export function integerIn(range: Range): Check {
  return (value, name) => checkInteger(value, name, range);
}

/** One of a few texts. */
export function oneOf(choices: readonly string[]): Check {
  return (value, name) => {
    if (typeof value !== 'string') wrong(name, value, choices.join(' or '));
    if (!choices.includes(value)) throw badOption(`${name} ${JSON.stringify(value)}: must be ${choices.join(' or ')}`);
  };
}

export function arrayOf(check: Check): Check {
  return (value, name) => {
    if (!Array.isArray(value)) wrong(name, value, 'an array');
    value.forEach((entry, index) => {
      check(entry, `${name}[${index}]`);
    });
  };
}

/** What has methods of these names, whatever its class. */
export function having(wanted: string, ...methods: string[]): Check {
  return (value, name) => {
    const object = value as Record<string, unknown> | null | undefined;
    if (object === null || (typeof object !== 'object' && typeof object !== 'function')) wrong(name, value, wanted);
    const missing = methods.find((method) => typeof object[method] !== 'function');
    if (missing !== undefined) wrong(name, value, wanted, `it has no method ${missing}()`);
  };
}

export const checkLogger = having('a logger', 'debug', 'info', 'warn', 'error');

export const checkSignal = having('an AbortSignal', 'addEventListener', 'removeEventListener', 'throwIfAborted');

const duplex = having('a stream that reads and writes', 'on', 'write', 'pipe', 'pause', 'resume', 'destroy');

/** A stream that both reads and writes: `net.Socket`, `TLSSocket`, any `Duplex`. */
export function checkDuplex(value: unknown, name: string): asserts value is Duplex {
  duplex(value, name);
}

/** An `http.Server` or `https.Server`. */
export function checkHttpServer(value: unknown, name: string): void {
  if (value instanceof NetServer) return;
  const advice = typeof value === 'function' ? 'give it the server, http.createServer(listener)' : '';
  wrong(name, value, 'an http.Server or https.Server', advice);
}

/**
 * Bytes as they are now. Those on shared memory are copied: another thread could change their number or themselves while they are read.
 * @throws DerpError `ERR_DERP_BAD_OPTION` for everything else, texts and other buffers included
 */
export function bytesOf(value: unknown, name: string): Uint8Array {
  if (!(value instanceof Uint8Array)) wrong(name, value, 'a Buffer or Uint8Array', bytesAdvice(value));
  if (value.buffer instanceof SharedArrayBuffer) return new Uint8Array(value);
  if (value.length === 0 && isDetached(value.buffer)) {
    throw badOption(`${name}: its ArrayBuffer is detached, as after a transfer to another thread; send a copy`);
  }
  return value;
}

function bytesAdvice(value: unknown): string {
  if (typeof value === 'string') return 'for its UTF-8 bytes use Buffer.from(text)';
  if (ArrayBuffer.isView(value)) return 'use new Uint8Array(view.buffer, view.byteOffset, view.byteLength)';
  const isBuffer = value instanceof ArrayBuffer || value instanceof SharedArrayBuffer;
  return isBuffer ? 'use new Uint8Array(buffer)' : '';
}
/** Node 20 has no `ArrayBuffer.detached`; no view can be made of a detached one. */
function isDetached(buffer: ArrayBufferLike): boolean {
  try {
    return new Uint8Array(buffer).length < 0;
  } catch {
    return true;
  }
}

/**
 * Options by their table. An option that is `undefined` counts as not given.
 * @param name - what messages call the object itself
 * @param prefix - what stands in front of its options' names in messages
 * @throws DerpError `ERR_DERP_BAD_OPTION` for a value that its check refuses, and for unknown options, with the nearest name
 */
export function checkOptions<Options>(
  options: unknown,
  name: string,
  checks: Checks<Options>,
  prefix = '',
): asserts options is Options {
  checkGroup(options, name, prefix, checks as Table, pathsOf(checks as Table, prefix));
}

type Table = Readonly<Record<string, Check | Readonly<Record<string, unknown>>>>;

function checkGroup(options: unknown, name: string, prefix: string, checks: Table, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) wrong(name, options, 'an object');
  for (const [option, value] of Object.entries(options)) {
    const path = `${prefix}${option}`;
    if (!Object.hasOwn(checks, option)) throw unknownOption(path, known);
    const check = checks[option]!;
    if (value === undefined) continue;
    if (typeof check === 'function') check(value, path);
    else checkGroup(value, path, `${path}.`, check as Table, known);
  }
}

/** Every option of a table by its path. */
function pathsOf(checks: Table, prefix = ''): string[] {
  return Object.entries(checks).flatMap(([name, check]) =>
    typeof check === 'function' ? [`${prefix}${name}`] : pathsOf(check as Table, `${prefix}${name}.`),
  );
}

function unknownOption(path: string, known: readonly string[]): DerpError {
  const near = nearest(path, known);
  const hint =
    near === undefined
      ? known.length === 0
        ? 'there are none'
        : `known are ${known.join(', ')}`
      : `did you mean ${near}?`;
  return badOption(`unknown option ${JSON.stringify(path)}: ${hint}`);
}

/** The option that somebody may have meant: `queueDepht` for `queues.depth`, `writeTimeout` for `timeouts.write`. */
function nearest(path: string, known: readonly string[]): string | undefined {
  const forms = known.flatMap((option) => [
    { option, form: words(option).join('') },
    { option, form: words(option.split('.').at(-1)!).join('') },
    { option, form: words(option).toSorted().join('') },
  ]);
  const meant = [words(path).join(''), words(path).toSorted().join('')];
  for (const text of meant) {
    const form = closestMatch(
      text,
      forms.map(({ form }) => form),
      { maxDistance: Math.ceil(text.length / 4) },
    );
    if (form !== undefined) return forms.find((entry) => entry.form === form)!.option;
  }
  return undefined;
}

/** Of `timeouts.keepAliveInterval`: timeout, keep, alive, interval. */
function words(path: string): string[] {
  return path
    .split(/\.|(?=[A-Z])/)
    .map((word) => word.toLowerCase().replace(/s$/, ''))
    .filter((word) => word !== '');
}
