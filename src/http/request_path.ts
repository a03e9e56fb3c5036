import { posix } from 'node:path';

/** The target of a request, as far as pages care. */
export interface RequestPath {
  /** Path as it was sent, still escaped. */
  escaped: string;
  /** Path without escapes; a slash that was escaped stays `%2F`, for it separates nothing. */
  path: string;
  /** Query with its question mark, or empty. */
  query: string;
  /** Where a client must go that sent dots, double slashes or `/debug`: an escaped path beginning with one slash. */
  redirect: string | undefined;
}

/** Reads a request target in origin or absolute form; undefined when it is neither or has malformed escapes. */
export function parseRequestPath(target: string): RequestPath | undefined {
  const origin = target.startsWith('/') ? target : target.match(/^https?:\/\/[^/?#]*(.*)$/i)?.[1];
  if (origin === undefined) return undefined;
  const mark = origin.indexOf('?');
  const escaped = (mark < 0 ? origin : origin.slice(0, mark)) || '/';
  const query = mark < 0 ? '' : origin.slice(mark);
  if (!escaped.startsWith('/')) return undefined;
  const path = unescapeSegments(escaped);
  if (path === undefined) return undefined;
  const clean = posix.normalize(escaped);
  const canonical = clean === '/debug' ? '/debug/' : clean;
  return { escaped, path, query, redirect: canonical === escaped ? undefined : escapeUnsafe(canonical + query) };
}

function unescapeSegments(escaped: string): string | undefined {
  if (!escaped.includes('%')) return escaped;
  try {
    return escaped
      .split('/')
      .map((segment) => decodeURIComponent(segment).replaceAll('/', '%2F'))
      .join('/');
  } catch {
    return undefined; // malformed escapes
  }
}

/** Escapes what a Location header must not carry raw; Node hands a target's bytes over as Latin-1. */
export function escapeUnsafe(text: string): string {
  return text.replace(
    /[^!-~]|["<>\\^`{|}]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}
