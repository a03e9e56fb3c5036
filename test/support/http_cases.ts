/** Requests, good and bad, that a relay and derper are compared with. */
import { BODIES } from './http_bodies.js';
import { HEADS } from './http_heads.js';
import { head } from './http_request.js';

/** Where those requests are sent: a target with its header lines, on one of a server's listeners. */
export const HEAD_SURFACES = {
  upgrade: { listener: 'plain', target: '/derp', lines: ['Upgrade: DERP', 'Connection: Upgrade'] },
  page: { listener: 'plain', target: '/derp/probe', lines: [] },
  'TLS page': { listener: 'tls', target: '/derp/probe', lines: [] },
  'port 80': { listener: 'port80', target: '/generate_204', lines: [] },
} as const;

export const METHODS = ['GET', 'HEAD', 'POST', 'OPTIONS', 'FOO', 'CONNECT'];

export const TARGETS = [
  ...[
    '/',
    '/nothing',
    '/derp',
    '/derp/',
    '/derp/x',
    '/derp/probe',
    '/derp/latency-check',
    '/generate_204',
    '/robots.txt',
  ],
  ...[
    '/debug',
    '/debug?x',
    '/debugx',
    '/debug/',
    '/debug/nothing',
    '//x',
    '/x/../y?q=1',
    '/%2e%2e/x',
    '/.well-known/acme-challenge/x',
  ],
  ...['http://other/x?y', 'http://other:99/', '*', 'x:80', '/%C3%A9?"<>', '//evil.example/..', '/\\evil'],
];

export interface HttpCase {
  /** Of the server: plain HTTP, HTTPS, or the plain port beside HTTPS. */
  listener: 'plain' | 'tls' | 'port80';
  name: string;
  request: string;
}

/** All cases: each head on each surface, each method with each target on each listener. */
export function httpCases(): HttpCase[] {
  const heads = Object.entries(HEAD_SURFACES).flatMap(([surface, { listener, target, lines }]) =>
    [...HEADS, ...BODIES].map(([name, request]) => ({
      listener,
      name: `${surface}: ${name}`,
      request: request(target, lines),
    })),
  );
  const targets = (['plain', 'tls', 'port80'] as const).flatMap((listener) =>
    TARGETS.flatMap((target) =>
      METHODS.map((method) => ({
        listener,
        name: `${listener} ${method} ${target}`,
        request: head(`${method} ${target} HTTP/1.1`, 'Host: h:1'),
      })),
    ),
  );
  return [...heads, ...targets];
}
