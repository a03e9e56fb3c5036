/** Names that clients give to the program that they are. */

/** Bytes of the longest name. */
const MAX_APP_NAME = 32;

/** Characters of an invalid name that a message shows. */
const SHOWN = 64;

/** Whether relays take a name: at most 32 bytes of printable ASCII. The empty one is none. */
export function isAppName(text: string): boolean {
  return text.length <= MAX_APP_NAME && /^[\x20-\x7e]*$/.test(text);
}

/** What a relay answers to another name; derper's words. */
export function invalidAppName(text: string): string {
  return `invalid AppName ${JSON.stringify(text.slice(0, SHOWN))}${text.length > SHOWN ? ' and more' : ''}`;
}
