/** Texts of requests. */

/** A request for a target, with further header lines. */
export type Requests = readonly (readonly [
  name: string,
  request: (target: string, lines: readonly string[]) => string,
])[];

export const HOST = 'Host: x';
export const CHUNKED = 'Transfer-Encoding: chunked';

export function head(requestLine: string, ...lines: string[]): string {
  return `${[requestLine, ...lines].join('\r\n')}\r\n\r\n`;
}

export function get(target: string, lines: readonly string[], ...more: string[]): string {
  return head(`GET ${target} HTTP/1.1`, HOST, ...more, ...lines);
}

export function post(target: string, lines: readonly string[], ...more: string[]): string {
  return head(`POST ${target} HTTP/1.1`, HOST, ...more, ...lines);
}
