/** A relay's way to another relay of its region, up to the point where native code takes the connection over. */
import type { Socket } from 'node:net';
import { FrameType } from '../protocol/frame.js';
import { openServerInfo } from '../protocol/info.js';
import type { PrivateKey, PublicKey } from '../protocol/key.js';
import { handshake, nextFrame } from './handshake.js';
import { type Dialling, openConnection } from './open_connection.js';
import { clientInfoOf } from './options.js';

/** A connection to a relay that has let this side in, and that nobody reads any more. */
export interface MeshConnection {
  readonly socket: Socket;
  /** Bytes that were read from the socket and belong to frames behind ServerInfo. */
  readonly unread: Buffer;
  readonly serverPublicKey: PublicKey;
}

/**
 * Connects to another relay as a client with the mesh key, and lets go of the connection once ServerInfo was read.
 * @param privateKey - this relay's own
 * @throws DerpError `ERR_DERP_SELF_CONNECT` when the other relay has the same key; `ERR_DERP_CONNECT`, `ERR_DERP_TIMEOUT`,
 *   `ERR_DERP_HTTP_STATUS`, `ERR_DERP_BAD_HANDSHAKE`, `ERR_DERP_BOX`, `ERR_DERP_CLOSED` when it cannot be had
 */
export function dialMesh(
  privateKey: PrivateKey,
  meshKey: string,
  url: URL,
  options: Pick<Dialling, 'dialHost' | 'timeout' | 'signal'>,
): Promise<MeshConnection> {
  const dialling = { ...options, url, fastStart: false, idealNode: undefined };
  return openConnection(dialling, async (socket, head) => {
    const session = await handshake(privateKey, socket, clientInfoOf({ meshKey }), {
      head,
      handshakeTimeout: options.timeout,
      refuseSelf: true,
    });
    const { stream, box, serverPublicKey } = session;
    // The relay may say other things first; it lets us in by ServerInfo, within openConnection's deadline.
    let frame = await nextFrame(stream);
    while (frame.type !== FrameType.SERVER_INFO) frame = await nextFrame(stream);
    openServerInfo(frame.body, box);
    return { socket, unread: stream.release(), serverPublicKey };
  });
}
