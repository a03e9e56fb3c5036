/**
 * JSON objects under the rules of Go's `encoding/json`, where they differ from `JSON.parse`: names match in any case, the last duplicate
 * wins over all cases (and every one of them must be of the right type), `null` leaves a member as it was, nesting has a bound.
 */

/** What a scanned value is. */
export type JsonKind = 'null' | 'boolean' | 'number' | 'string' | 'array' | 'object';

/** A value whose syntax was checked. */
export interface JsonValue {
  readonly kind: JsonKind;
  /** The value as it was written. */
  readonly text: string;
}

/** Takes the value of a member, each time that the member appears; throws an Error saying what it needs. */
export type MemberReader = (value: JsonValue) => void;

const MAX_DEPTH = 10_000;
const MAX_INT64 = 2n ** 63n - 1n;
const MIN_INT64 = -(2n ** 63n);

/**
 * Reads an object, or `null`, which is an object without members.
 * @param json - UTF-8
 * @param members - readers by **lower-case** name; other members are checked for syntax and ignored
 * @param mayBeFollowed - whether other text may follow, as Go's `Decoder` has it; what follows is not looked at
 * @throws SyntaxError saying what is wrong and at which byte; the message holds no value of a member
 */
export function readGoObject(
  json: Buffer,
  members: Readonly<Record<string, MemberReader>>,
  { mayBeFollowed = false } = {},
): void {
  const scanner = new Scanner(json);
  scanner.skipSpace();
  if (scanner.peek() !== OPEN_OBJECT) {
    const kind = scanner.value();
    if (kind !== 'null') throw new SyntaxError(`${kind}, needs an object`);
  } else {
    scanner.members((name, kind, start, end) => {
      const key = foldName(name);
      if (Object.hasOwn(members, key))
        readMember(name, members[key]!, { kind, text: json.toString('utf8', start, end) });
    });
  }
  if (!mayBeFollowed) scanner.end();
}

/** An integer of 64 bits, or `undefined` for `null`. Beyond 2^53 it is rounded. */
export function goInteger(value: JsonValue): number | undefined {
  if (value.kind === 'null') return undefined;
  if (value.kind !== 'number' || !/^-?\d+$/.test(value.text)) throw new Error('needs an integer');
  const integer = value.text.length < 16 ? Number(value.text) : goInt64(value.text);
  return integer === 0 ? 0 : integer;
}

/** A boolean, or `undefined` for `null`. */
export function goBoolean(value: JsonValue): boolean | undefined {
  if (value.kind === 'null') return undefined;
  if (value.kind !== 'boolean') throw new Error('needs true or false');
  return value.text === 'true';
}

/** A text, or `undefined` for `null`. */
export function goString(value: JsonValue): string | undefined {
  if (value.kind === 'null') return undefined;
  if (value.kind !== 'string') throw new Error('needs a string');
  return JSON.parse(value.text) as string;
}

function goInt64(text: string): number {
  // A longer text cannot be in range, and converting it would cost the square of its length.
  if (text.length > 20) throw new Error('needs an integer of 64 bits');
  const integer = BigInt(text);
  if (integer > MAX_INT64 || integer < MIN_INT64) throw new Error('needs an integer of 64 bits');
  return Number(integer);
}

function readMember(name: string, reader: MemberReader, value: JsonValue): void {
  try {
    reader(value);
  } catch (cause) {
    throw new SyntaxError(`${name} is of kind ${value.kind}: ${(cause as Error).message}`, { cause });
  }
}

/** Go folds names by Unicode's simple case folding; besides A-Z only the long s and the Kelvin sign fold into ASCII. */
function foldName(name: string): string {
  return name.replaceAll('\u017f', 's').replaceAll('\u212a', 'k').toLowerCase();
}

const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const MINUS = 0x2d;
const PLUS = 0x2b;
const POINT = 0x2e;
const ZERO = 0x30;
const LOWER_E = 0x65;
const LOWER_U = 0x75;
const SIMPLE_ESCAPES = new Set(Buffer.from('"\\/bfnrt'));

/** Walks JSON text byte by byte and checks its syntax; keeps no values. Nesting costs a stack of closing brackets, no recursion. */
class Scanner {
  readonly #json: Buffer;
  #at = 0;
  /** Whether the innermost container was just opened, so that no comma is due. */
  #fresh = false;
  /** Where the last name of a member ended. */
  #nameEnd = 0;

  constructor(json: Buffer) {
    this.#json = json;
  }

  /** The next byte; -1 at the end. */
  peek(): number {
    return this.#json[this.#at] ?? -1;
  }

  skipSpace(): void {
    for (;;) {
      const byte = this.peek();
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
      this.#at++;
    }
  }

  /** Nothing but space may follow. */
  end(): void {
    this.skipSpace();
    if (this.#at < this.#json.length) throw this.#wrong('text after the value');
  }

  /** Passes an object and reports each of its members with the span of its value. */
  members(report: (name: string, kind: JsonKind, start: number, end: number) => void): void {
    this.#at++;
    this.skipSpace();
    if (this.#accept(CLOSE_OBJECT)) return;
    for (;;) {
      const nameStart = this.#at;
      this.#name();
      const name = JSON.parse(this.#json.toString('utf8', nameStart, this.#nameEnd)) as string;
      this.skipSpace();
      const start = this.#at;
      const kind = this.value();
      report(name, kind, start, this.#at);
      this.skipSpace();
      if (this.#accept(CLOSE_OBJECT)) return;
      this.#expect(COMMA, '"," or "}"');
      this.skipSpace();
    }
  }

  /** Passes a value of any depth. */
  value(): JsonKind {
    const closers: number[] = [];
    const kind = this.#begin(closers);
    while (closers.length > 0) {
      this.skipSpace();
      const closer = closers[closers.length - 1]!;
      if (this.#accept(closer)) {
        closers.pop();
        this.#fresh = false;
        continue;
      }
      if (this.#fresh) this.#fresh = false;
      else this.#expect(COMMA, `"," or "${String.fromCharCode(closer)}"`);
      this.skipSpace();
      if (closer === CLOSE_OBJECT) this.#name();
      this.skipSpace();
      this.#begin(closers);
    }
    return kind;
  }

  /** Passes a scalar, or the opening bracket of a container, whose closing one it pushes. */
  #begin(closers: number[]): JsonKind {
    const byte = this.peek();
    this.#fresh = byte === OPEN_OBJECT || byte === OPEN_ARRAY;
    if (this.#fresh) {
      // The object that holds the value counts too.
      if (closers.length + 2 > MAX_DEPTH) throw this.#wrong(`nesting deeper than ${MAX_DEPTH}`);
      this.#at++;
      closers.push(byte === OPEN_OBJECT ? CLOSE_OBJECT : CLOSE_ARRAY);
      return byte === OPEN_OBJECT ? 'object' : 'array';
    }
    if (byte === QUOTE) return this.#string();
    if (byte === 0x74) return this.#literal('true', 'boolean');
    if (byte === 0x66) return this.#literal('false', 'boolean');
    if (byte === 0x6e) return this.#literal('null', 'null');
    return this.#number();
  }

  /** Passes a member's name and the colon. */
  #name(): void {
    if (this.peek() !== QUOTE) throw this.#wrong('no name of a member');
    this.#string();
    this.#nameEnd = this.#at;
    this.skipSpace();
    this.#expect(COLON, '":"');
  }

  #string(): JsonKind {
    this.#at++;
    for (;;) {
      const byte = this.peek();
      if (byte < 0x20) throw this.#wrong(byte < 0 ? 'string without end' : 'control character in a string');
      this.#at++;
      if (byte === QUOTE) return 'string';
      if (byte === BACKSLASH) this.#escape();
    }
  }

  #escape(): void {
    const byte = this.peek();
    if (byte === LOWER_U) {
      const digits = this.#json.toString('latin1', this.#at + 1, this.#at + 5);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw this.#wrong('bad \\u escape');
      this.#at += 5;
    } else if (SIMPLE_ESCAPES.has(byte)) {
      this.#at++;
    } else {
      throw this.#wrong('bad escape in a string');
    }
  }

  #literal(word: string, kind: JsonKind): JsonKind {
    if (this.#json.toString('latin1', this.#at, this.#at + word.length) !== word) throw this.#wrong('no value');
    this.#at += word.length;
    return kind;
  }

  #number(): JsonKind {
    const negative = this.#accept(MINUS);
    if (!this.#accept(ZERO)) this.#digits(negative ? 'no digit after "-"' : 'no value');
    if (this.#accept(POINT)) this.#digits('no digit after "."');
    if ((this.peek() | 0x20) === LOWER_E) {
      this.#at++;
      if (!this.#accept(MINUS)) this.#accept(PLUS);
      this.#digits('no digit in the exponent');
    }
    return 'number';
  }

  #digits(otherwise: string): void {
    const start = this.#at;
    while (this.peek() >= ZERO && this.peek() <= 0x39) this.#at++;
    if (this.#at === start) throw this.#wrong(otherwise);
  }

  #accept(byte: number): boolean {
    if (this.peek() !== byte) return false;
    this.#at++;
    return true;
  }

  #expect(byte: number, what: string): void {
    if (!this.#accept(byte)) throw this.#wrong(`no ${what}`);
  }

  #wrong(what: string): SyntaxError {
    return new SyntaxError(`${what} at byte ${this.#at} of ${this.#json.length}`);
  }
}
