/** Requests that Node's parser read, which passes over some of what {@link checkHead} refuses. */
import type { IncomingMessage } from 'node:http';
import { checkHead, type RequestHead } from './head.js';
import { type RefusalCode, RefusedRequest } from './refusal.js';
import { checkTarget } from './target.js';

/** The head of a request that Node's parser read. */
export function headOf({
  method = '',
  url = '',
  httpVersionMajor,
  httpVersionMinor,
  rawHeaders,
}: IncomingMessage): RequestHead {
  const headers: [string, string][] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) headers.push([rawHeaders[i]!, rawHeaders[i + 1]!]);
  return { method, target: url, major: httpVersionMajor, minor: httpVersionMinor, headers };
}

/** Why a head must be refused, or `undefined`. */
export function refusalOf(head: RequestHead): RefusalCode | undefined {
  if (!checkTarget(head.method, head.target)) return 'target';
  try {
    checkHead(head);
    return undefined;
  } catch (error) {
    if (error instanceof RefusedRequest) return error.refusal;
    throw error;
  }
}
