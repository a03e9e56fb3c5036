/** Connections that an embedder's server accepted, on their way into a shard. */
import { Socket } from 'node:net';
import { type Duplex, pipeline } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { hostOf, unmapped, withHost, withPort } from '../ip_address.js';
import type { ConnectionId, NativeRelay } from '../native.js';
import type { HeaderList, TrustedProxies } from '../proxies.js';
import { readAll, TlsStream } from '../tls/tls_stream.js';

/**
 * Makes a native connection of `stream`, which must not be used any more. A plain TCP or Unix socket gives its descriptor away, a
 * {@link TlsStream} its session too; anything else (Node's `TLSSocket`, any `Duplex`) is piped through a socketpair, which costs JavaScript per packet.
 *
 * @param head - bytes of the connection that were read already
 * @param remote - `ip:port` for logs and presence; may be empty
 * @param exempt - whether the relay made the connection itself: then it is taken however many handshakes are in progress
 * @throws Error with `code` `budget` when the relay has too many handshakes in progress; the stream is destroyed then
 */
export async function takeOver(
  relay: NativeRelay,
  stream: Duplex,
  head: Uint8Array,
  remote: string,
  exempt = false,
): Promise<ConnectionId> {
  try {
    const socket = stream instanceof TlsStream ? stream.socket : stream;
    return descriptorOf(socket) === undefined
      ? bridge(relay, stream, head, remote, exempt)
      : await importSocket(relay, stream, socket as Socket, head, remote, exempt);
  } catch (error) {
    stream.destroy();
    throw error;
  }
}

/** `ip:port` of a socket, IPv6 in brackets and IPv4 never as v4-in-v6; empty when there is none. */
export function remoteOf(stream: Duplex): string {
  const { remoteAddress, remotePort } = stream as Partial<Socket>;
  if (remoteAddress === undefined || remotePort === undefined) return '';
  return withPort(unmapped(remoteAddress), remotePort);
}

/** The client of a request that came over `stream`, `ip:port`; of one that a trusted proxy passed on, the port is the proxy's. */
export function clientOf(stream: Duplex, headers: HeaderList, proxies: TrustedProxies): string {
  const remote = remoteOf(stream);
  const client = proxies.clientOf(hostOf(remote), headers);
  return client === undefined ? remote : withHost(remote, client);
}

function descriptorOf(stream: Duplex): number | undefined {
  if (!(stream instanceof Socket) || stream instanceof TLSSocket || stream.destroyed) return undefined;
  const fd = handleOf(stream)?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}

/** Node's handle of a socket: not documented, but what every program that passes sockets on relies on. */
function handleOf(socket: Socket): { fd?: number; readStop?: () => void } | undefined {
  return (socket as unknown as { _handle?: { fd?: number; readStop?: () => void } })._handle;
}

async function importSocket(
  relay: NativeRelay,
  stream: Duplex,
  socket: Socket,
  head: Uint8Array,
  remote: string,
  exempt: boolean,
): Promise<ConnectionId> {
  stream.pause();
  socket.pause();
  if (stream.writableLength > 0) await written(stream);
  if (socket.writableLength > 0) await written(socket);
  // From here in one tick: bytes must not arrive in the stream once we looked there.
  const handle = handleOf(socket);
  if (socket.destroyed || handle?.fd === undefined || handle.fd < 0)
    throw new Error('the socket closed during the handover');
  handle.readStop?.();
  const released = stream instanceof TlsStream ? stream.release() : { session: undefined, unread: readAll(socket) };
  const id = relay.importFd(handle.fd, Buffer.concat([head, released.unread]), remote, exempt, released.session);
  // The relay has a duplicate: this closes our descriptor, not the connection.
  socket.destroy();
  return id;
}

function written(socket: Duplex): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write('', (error) => (error ? reject(error) : resolve()));
  });
}

/** A connection of the relay that is one end of a socketpair, and the other end. @throws Error with `code` `budget` */
export function connectedPair(
  relay: NativeRelay,
  head: Uint8Array,
  remote: string,
  exempt: boolean,
): { id: ConnectionId; end: Socket } {
  const { id, fd } = relay.socketPair(head, remote, exempt);
  return { id, end: new Socket({ fd, readable: true, writable: true }) };
}

/** One end of a socketpair is the relay's, the other is piped to the stream in both directions. */
function bridge(relay: NativeRelay, stream: Duplex, head: Uint8Array, remote: string, exempt: boolean): ConnectionId {
  if (stream.destroyed) throw new Error('the stream is closed');
  const { id, end } = connectedPair(relay, head, remote, exempt);
  // Either side's end or error ends both; the relay sees the end of its socket.
  pipeline(stream, end, () => stream.destroy());
  pipeline(end, stream, () => end.destroy());
  return id;
}
