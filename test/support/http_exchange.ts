/** What a server makes of raw bytes, in short. */
import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { HttpCase } from './http_cases.js';

/** Sent behind every case: where its answer comes, the connection went on. */
const END = 'GET /generate_204 HTTP/1.1\r\nHost: end\r\nX-Tailscale-Challenge: end\r\nConnection: close\r\n\r\n';
const END_ANSWER = 'response end';

/** Milliseconds that a server may take to close. */
const PATIENCE = 20_000;
/** Connections at once. */
const CONCURRENCY = 16;
const SERVER_KEY = '\x01\0\0\0';

/** Loopback ports of a server's listeners. */
export type Ports = Record<HttpCase['listener'], number>;

/** Runs cases and resolves with a line for each: its name, and what came back. */
export async function runCases(cases: readonly HttpCase[], ports: Ports): Promise<Map<string, string>> {
  const results = new Map<string, string>();
  const left = [...cases];
  const work = async () => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const { listener, name, request } = next;
      results.set(name, summaryOf(await exchange(ports[listener], listener === 'tls', request + END), request));
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, work));
  return results;
}

/** All that comes until the server closes; a reset counts as closing. */
function exchange(port: number, tls: boolean, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = tls
      ? connectTls({ port, host: '127.0.0.1', servername: 'derp.example.com', rejectUnauthorized: false })
      : connect(port, '127.0.0.1');
    const chunks: Buffer[] = [];
    const timer = setTimeout(() => socket.destroy(new Error('timeout')), PATIENCE);
    let timedOut = '';
    socket
      .on('data', (chunk: Buffer) => chunks.push(chunk))
      .on('end', () => socket.destroy())
      .on('error', ({ message }) => {
        if (message === 'timeout') timedOut = message;
      })
      .on('close', () => {
        clearTimeout(timer);
        resolve(Buffer.concat(chunks).toString('latin1') + timedOut);
      });
    socket.once(tls ? 'secureConnect' : 'connect', () => socket.write(Buffer.from(bytes, 'latin1')));
  });
}

/** Statuses, types, bodies that are text, and where redirects lead; `goes on` where the connection did. */
function summaryOf(bytes: string, request: string): string {
  const methods = [...request.matchAll(/(?:^|\n)(\S+) \S+ HTTP/g)].map(([, method]) => method);
  const parts: string[] = [];
  let rest = bytes;
  while (rest !== '') {
    if (rest.startsWith(SERVER_KEY)) return [...parts, 'ServerKey'].join(', ');
    const answer = readAnswer(rest, methods.shift() === 'HEAD');
    if (answer === undefined) return [...parts, JSON.stringify(rest.slice(0, 100))].join(', ');
    parts.push(answer.text);
    rest = answer.rest;
  }
  return parts.join(', ');
}

function readAnswer(bytes: string, isHead: boolean): { text: string; rest: string } | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  const [line = '', ...lines] = bytes.slice(0, end).split('\r\n');
  const status = Number(/^HTTP\/1\.[01] (\d{3}) /.exec(line)?.[1]);
  if (end < 0 || Number.isNaN(status)) return undefined;
  const headers = new Map(lines.map((text) => [text.split(':', 1)[0]!.toLowerCase(), text.replace(/^[^:]*: */, '')]));
  if (headers.get('x-tailscale-response') === END_ANSWER) return { text: 'goes on', rest: bytes.slice(end + 4) };
  const length = isHead || status < 200 || status === 204 ? 0 : Number(headers.get('content-length') ?? bytes.length);
  const body = bytes.slice(end + 4, end + 4 + length);
  const type = headers.get('content-type')?.split(';')[0] ?? '';
  const shown = body === '' ? '' : type === 'text/plain' ? JSON.stringify(body) : 'with body';
  const location = headers.has('location') ? `to ${headers.get('location')}` : '';
  return {
    text: [status, type, location, shown].filter((part) => part !== '').join(' '),
    rest: bytes.slice(end + 4 + length),
  };
}
