/** The text of a list of admitted keys. */
import { PublicKey } from '../protocol/key.js';
import { type Admission, ALLOWED, isLabel, MAX_LABEL } from './decision.js';

/** Decisions by the hexadecimal text of a key. */
export type KeyList = ReadonlyMap<string, Admission>;

/** Characters of a wrong word that a message shows: it may be anything, were it a secret put into the wrong file. */
const SHOWN = 12;

/**
 * Reads lines of the form `nodekey:HEX [label=NAME] [rate=BYTES/S]`. From a `#` on a line is a comment.
 * @throws Error naming the line and what is wrong with it
 */
export function parseKeyList(text: string): KeyList {
  const list = new Map<string, Admission>();
  const lines = new Map<string, number>();
  text.split('\n').forEach((line, index) => {
    const words = line.replace(/#.*/s, '').trim().split(/\s+/);
    if (words[0] === '') return;
    try {
      const [key, decision] = parseLine(words as [string, ...string[]]);
      const before = lines.get(key);
      if (before !== undefined) throw new Error(`the key is on line ${before} already`);
      lines.set(key, index + 1);
      list.set(key, decision);
    } catch (cause) {
      throw new Error(`line ${index + 1}: ${(cause as Error).message}`, { cause });
    }
  });
  return list;
}

function parseLine([key, ...attributes]: [string, ...string[]]): [hex: string, Admission] {
  let found: { label?: string; receiveRate?: number } = {};
  for (const attribute of attributes) {
    const one = parseAttribute(attribute);
    const name = Object.keys(one)[0]!;
    if (name in found) throw new Error(`${shown(attribute)}: given twice`);
    found = { ...found, ...one };
  }
  return [parseKey(key), attributes.length === 0 ? ALLOWED : { allow: true, ...found }];
}

function parseKey(text: string): string {
  const [, hex] = /^nodekey:([0-9a-fA-F]{64})$/.exec(text) ?? [];
  if (hex === undefined) throw new Error(`${shown(text)}: must be "nodekey:" and 64 hexadecimal digits`);
  const key = PublicKey.fromHex(hex);
  if (key.isZero) throw new Error('an all-zero key never matches a client');
  return key.hex;
}

function parseAttribute(text: string): { label: string } | { receiveRate: number } {
  const [, name, value] = /^(label|rate)=(.*)$/s.exec(text) ?? [];
  if (name === undefined || value === undefined) {
    throw new Error(`${shown(text)}: unknown; a key may be followed by label=NAME and rate=BYTES/S`);
  }
  if (name === 'label') {
    if (isLabel(value)) return { label: value };
    throw new Error(`label: must be 1 to ${MAX_LABEL} printable ASCII characters without quotes and backslashes`);
  }
  const receiveRate = Number(value);
  if (/^\d+$/.test(value) && Number.isSafeInteger(receiveRate) && receiveRate > 0) return { receiveRate };
  throw new Error(`rate=${shown(value)}: must be bytes per second, an integer from 1 to ${Number.MAX_SAFE_INTEGER}`);
}

function shown(word: string): string {
  return JSON.stringify(word.length > SHOWN ? `${word.slice(0, SHOWN)}…` : word);
}
