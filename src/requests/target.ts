/** What a request asks for: its target, in origin form (`/path`), absolute form (`http://host/path`) or otherwise. */
import { posix } from 'node:path';

/** The target of a request, as far as pages care. */
export interface RequestPath {
  /** Path as it was sent, still escaped. */
  escaped: string;
  /** Path without escapes; a slash that was escaped stays `%2F`, for it separates nothing. */
  path: string;
  /** Query with its question mark, or empty. */
  query: string;
  /** Host and port of a target in absolute form. */
  authority: string | undefined;
  /** Where a client must go that sent dots, double slashes or `/debug`: an escaped path beginning with one slash. */
  redirect: string | undefined;
}

/** Scheme, authority, and path with query. */
const ABSOLUTE = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?]*)(.*)$/s;
/** A scheme with something else behind it, as `mailto:x` or `host:80`. */
const OPAQUE = /^[A-Za-z][A-Za-z0-9+.-]*:(?!\/)[^?]*(.*)$/s;
const AUTHORITY =
  /^(?:[A-Za-z0-9\-._:~!$&'()*+,;=%@]*@)?(?:\[[0-9A-Fa-f:.]+(?:%25[^\]]*)?\]|[A-Za-z0-9\-._~!$&'()*+,;=<>"\x80-\xff]*)(?::\d*)?$/;
const BAD_ESCAPE = /%(?![0-9A-Fa-f]{2})/;
const CONTROL = /[\0- \x7f]/;

/** Whether a target is well formed. That of CONNECT may be an authority alone. */
export function checkTarget(method: string, target: string): boolean {
  if (target === '' || CONTROL.test(target)) return false;
  if (target === '*') return true;
  if (method === 'CONNECT' && !target.startsWith('/')) return AUTHORITY.test(target.replace(/[/?].*$/s, ''));
  const [, authority, rest] = ABSOLUTE.exec(target) ?? [];
  if (authority !== undefined) return AUTHORITY.test(authority) && !BAD_ESCAPE.test(pathOf(rest!));
  return OPAQUE.test(target) || (/^(?:[A-Za-z][A-Za-z0-9+.-]*:)?\//.test(target) && !BAD_ESCAPE.test(pathOf(target)));
}

function pathOf(target: string): string {
  return target.split('?', 1)[0]!;
}

/** Reads a request target; undefined when it names no path, as `*` does, or has malformed escapes. */
export function parseRequestPath(target: string): RequestPath | undefined {
  const [, authority, rest] = ABSOLUTE.exec(target) ?? [];
  const opaque = OPAQUE.exec(target)?.[1];
  const origin = rest ?? opaque ?? target.replace(/^[A-Za-z][A-Za-z0-9+.-]*:(?=\/)/, '');
  const mark = origin.indexOf('?');
  const escaped = mark < 0 ? origin : origin.slice(0, mark);
  const query = mark < 0 ? '' : origin.slice(mark);
  if (escaped !== '' && !escaped.startsWith('/')) return undefined;
  const path = unescapeSegments(escaped);
  if (path === undefined) return undefined;
  const clean = escaped === '' ? '/' : posix.normalize(escaped);
  const canonical = clean === '/debug' ? '/debug/' : clean;
  const redirect = canonical === escaped ? undefined : escapeUnsafe(canonical + query);
  return { escaped, path, query, authority, redirect };
}

function unescapeSegments(escaped: string): string | undefined {
  if (!escaped.includes('%')) return escaped;
  if (BAD_ESCAPE.test(escaped)) return undefined;
  return escaped
    .split('/')
    .map((segment) => unescaped(segment).replaceAll('/', '%2F'))
    .join('/');
}

/** Byte for byte: what is not UTF-8 is a path, too. */
function unescaped(segment: string): string {
  return segment.replace(/%(..)/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));
}

/** Escapes what a Location header must not carry raw; a target's bytes are read as Latin-1. */
export function escapeUnsafe(text: string): string {
  return text.replace(
    /[^!-~]|["<>\\^`{|}]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}
