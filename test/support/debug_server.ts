/** Debug pages of a relay under test, on a listener of their own. */
import { once } from 'node:events';
import { type IncomingMessage, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { createMetricsServer, type MetricsServerOptions } from 'derplane';
import { type Family, parsePrometheus } from './prometheus.js';

export interface Answer {
  status: number | undefined;
  headers: IncomingMessage['headers'];
  body: string;
}

export async function ask(
  port: number,
  path: string,
  method = 'GET',
  headers: Record<string, string> = {},
): Promise<Answer> {
  const asked = request({ host: '127.0.0.1', port, path, method, headers, agent: false });
  asked.end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

/** Listens on a free loopback port. */
export async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

export async function end(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
}

/** Runs `body` with the port of a metrics server. */
export async function withMetrics(
  options: Omit<MetricsServerOptions, 'host'> & { host?: string },
  body: (port: number) => Promise<void>,
): Promise<void> {
  const server = createMetricsServer({ host: '127.0.0.1', ...options });
  const port = await listen(server);
  try {
    await body(port);
  } finally {
    await end(server);
  }
}

/** All samples at /debug/varz, by name and labels as they stand there. */
export async function samples(port: number): Promise<Map<string, number>> {
  const all = new Map<string, number>();
  for (const { samples } of (await families(port)).values()) for (const [key, value] of samples) all.set(key, value);
  return all;
}

export async function families(port: number): Promise<Map<string, Family>> {
  return parsePrometheus((await ask(port, '/debug/varz')).body);
}
