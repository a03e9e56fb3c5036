/** Bytes that Linux keeps of a thread's name. */
const MAX_LENGTH = 15;

/** `derplane:shard0`; from 10 on the word gives way to the number, which tells threads apart: `derplane:shar10`. */
export function threadName(kind: string, index: number): string {
  const number = String(index);
  return `derplane:${kind}`.slice(0, MAX_LENGTH - number.length) + number;
}
