import type { Socket } from 'node:net';
import { native } from '../native.js';
import { setRemoteAddress } from '../proxies.js';

/**
 * Takes the PROXY header that a connection of a trusted proxy may begin with, then calls `begin`; the client's bytes wait in the socket.
 * A malformed header, or half of one, ends the connection.
 *
 * @param deadline - milliseconds for the header
 */
export function afterProxyHeader(socket: Socket, deadline: number, begin: () => void): void {
  let bytes: Buffer = Buffer.alloc(0);
  const end = () => void socket.destroy();
  const timer = setTimeout(end, deadline);
  const take = (chunk: Buffer) => {
    bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
    const { state, size, client } = native.readProxyHeader(bytes);
    if (state === 'more') return;
    finish();
    if (state === 'bad') return end();
    socket.pause();
    if (client !== '') setRemoteAddress(socket, client);
    if (bytes.length > size) socket.unshift(bytes.subarray(size));
    begin();
    // Adding a reader to a paused socket does not start it.
    socket.resume();
  };
  const finish = () => {
    clearTimeout(timer);
    socket.off('data', take).off('end', end).off('error', end).off('close', finish);
  };
  socket.on('data', take).on('end', end).on('error', end).on('close', finish);
}
