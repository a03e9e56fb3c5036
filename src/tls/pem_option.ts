/** PEM texts as options: strings or bytes, as Node's own `tls` takes them. */
import { arrayOf, bytesOf, wrong } from '../checks.js';

/** One or more PEM blocks. */
export type Pem = string | Buffer;

/** A {@link Pem}, or several. */
export function checkPem(value: unknown, name: string): void {
  if (Array.isArray(value)) arrayOf(checkOnePem)(value, name);
  else checkOnePem(value, name);
}

export function checkOnePem(value: unknown, name: string): asserts value is Pem {
  if (typeof value === 'string') return;
  if (!(value instanceof Uint8Array)) wrong(name, value, 'a PEM text, as string or Buffer');
  bytesOf(value, name);
}

/** The text of checked PEMs. */
export function pemText(pem: Pem | readonly Pem[]): string {
  const texts = Array.isArray(pem) ? (pem as readonly Pem[]) : [pem as Pem];
  return texts.map((text) => (typeof text === 'string' ? text : Buffer.from(text).toString('latin1'))).join('\n');
}
