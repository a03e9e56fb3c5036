/** TCP ports of this machine. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';

/** A port that was free just now. */
export async function freePort(host?: string): Promise<number> {
  return (await freePorts(1, host))[0] as number;
}

/** Ports that were free just now, TCP and (as good as certainly) UDP. */
export async function freePorts(count: number, host = '127.0.0.1'): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, host);
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}

/** Whether somebody accepts connections at a port. */
export async function isListening(port: number, host = '127.0.0.1'): Promise<boolean> {
  const socket = connect(port, host);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
