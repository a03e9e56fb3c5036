/** Servers that decide who may use a relay, and clients that ask. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { clientInfoBody, Frame, frame, type RawClient, upgradeHead } from './raw_client.js';
import type { TestRelay } from './relay.js';

export interface FakeServer {
  readonly url: string;
  /** Requests so far, as `METHOD URL HOST`, with their bodies. */
  readonly requests: { line: string; headers: IncomingMessage['headers']; body: string }[];
  close(): Promise<void>;
}

/** Starts an HTTP server on loopback, or on a Unix socket. */
export async function startServer(
  answer: (request: IncomingMessage, response: ServerResponse, body: string) => void,
  socket?: string,
): Promise<FakeServer> {
  const requests: FakeServer['requests'] = [];
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      requests.push({ line: `${request.method} ${request.url}`, headers: request.headers, body });
      answer(request, response, body);
    });
  });
  server.listen(socket ?? { port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  return {
    url: socket === undefined ? `http://127.0.0.1:${(server.address() as AddressInfo).port}` : '',
    requests,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Sends a ClientInfo and resolves with what the relay makes of the client. */
export async function ask(
  client: RawClient,
  info: { appName?: string; meshKey?: string } = {},
): Promise<'admitted' | 'refused'> {
  await client.write(upgradeHead());
  await client.readHead();
  const serverKey = await client.readServerKey();
  const { appName, meshKey } = info;
  const json = { ...(meshKey && { meshKey }), version: 2, CanAckPings: false, ...(appName && { AppName: appName }) };
  client.push(frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey, json: JSON.stringify(json) })));
  try {
    await client.readServerInfo();
    return 'admitted';
  } catch (error) {
    if (!(error as Error).message.includes('the connection ended')) throw error;
    // Nothing came between ServerKey and the end.
    if (client.unread !== 0) throw new Error(`${client.unread} bytes came before the end`);
    return 'refused';
  }
}

/** A new client of the relay that asks. */
export async function askRelay(
  relay: TestRelay,
  info: { appName?: string; meshKey?: string } = {},
  key?: RawClient['key'],
): Promise<'admitted' | 'refused'> {
  return ask(await relay.dial(key), info);
}
