/** A relay's way to another relay of its region, up to the point where native code takes the connection over. */
import type { Duplex } from 'node:stream';
import { DerpError } from '../errors.js';
import { Box } from '../protocol/box.js';
import { FrameType } from '../protocol/frame.js';
import type { Frame } from '../protocol/frame_reader.js';
import { openServerInfo, sealClientInfo } from '../protocol/info.js';
import type { PrivateKey, PublicKey } from '../protocol/key.js';
import type { FrameStream } from './frame_stream.js';
import { handshake, nextFrame, refuseOwnKey } from './handshake.js';
import { type Dialling, openConnection } from './open_connection.js';
import { clientInfoOf } from './options.js';

/** A connection to a relay that admitted this side, detached from its reader. */
export interface MeshConnection {
  readonly connection: Duplex;
  /** Bytes that were read from the connection and belong to frames behind ServerInfo. */
  readonly unread: Buffer;
  readonly serverPublicKey: PublicKey;
}

/**
 * Connects to another relay as a client with the mesh key, and lets go of the connection once ServerInfo was read.
 * @param privateKey - this relay's own
 * @throws DerpError `ERR_DERP_SELF_CONNECT` when the other relay has the same key; `ERR_DERP_CONNECT`, `ERR_DERP_TIMEOUT`,
 *   `ERR_DERP_TLS`, `ERR_DERP_CERTIFICATE`, `ERR_DERP_HTTP_STATUS`, `ERR_DERP_BAD_HANDSHAKE`, `ERR_DERP_BOX`, `ERR_DERP_CLOSED` when it fails
 */
export function dialMesh(
  privateKey: PrivateKey,
  meshKey: string,
  url: URL,
  options: Pick<Dialling, 'dialHost' | 'timeout' | 'signal' | 'trust'>,
): Promise<MeshConnection> {
  const info = clientInfoOf({ meshKey });
  const clientInfo = (relay: PublicKey) => {
    refuseOwnKey(relay, privateKey);
    return sealClientInfo(info, privateKey.publicKey, new Box(relay, privateKey));
  };
  const dialling = { ...options, url, fastStart: false, idealNode: undefined, clientInfo };
  return openConnection(dialling, async (connection, { head, serverPublicKey: told }) => {
    const session = await handshake(privateKey, connection, info, {
      head,
      handshakeTimeout: options.timeout,
      refuseSelf: true,
      ...(told !== undefined && { serverPublicKey: told, clientInfoSent: true }),
    });
    const { stream, box, serverPublicKey } = session;
    // The relay may say other things first; it lets us in by ServerInfo, within openConnection's deadline.
    openServerInfo((await serverInfoOf(stream)).body, box);
    return { connection, unread: stream.release(), serverPublicKey };
  });
}

/** A relay that admits only some clients lets a mesh peer in without being asked, and sends anyone else away before ServerInfo. */
async function serverInfoOf(stream: FrameStream): Promise<Frame> {
  try {
    let frame = await nextFrame(stream);
    while (frame.type !== FrameType.SERVER_INFO) frame = await nextFrame(stream);
    return frame;
  } catch (error) {
    if (!(error instanceof DerpError) || error.code !== 'ERR_DERP_CLOSED') throw error;
    throw new DerpError(
      error.code,
      `${error.message} before it let us in: it accepts neither our mesh key nor our node key; check -mesh-psk-file (mesh.key) on both`,
      { cause: error },
    );
  }
}
