import { DerpError } from '../errors.js';
import { Box } from '../protocol/box.js';
import { FrameType, MAX_CLIENT_FRAME_SIZE, MAX_SERVER_KEY_SIZE, readServerKey } from '../protocol/frame.js';
import type { Frame } from '../protocol/frame_reader.js';
import { type ClientInfo, sealClientInfo } from '../protocol/info.js';
import type { PrivateKey, PublicKey } from '../protocol/key.js';
import { onAbort } from './abortable.js';
import type { Conn } from './conn.js';
import { HANDSHAKE_TIMEOUT } from './defaults.js';
import { FrameStream } from './frame_stream.js';
import type { ClientOptions } from './options.js';

/** {@link ClientOptions} of a handshake, and one that only relays need. */
export interface HandshakeOptions extends ClientOptions {
  /** Whether a relay with this side's own key is refused (`ERR_DERP_SELF_CONNECT`) before anything is said. Default: false. */
  refuseSelf?: boolean;
  /** Whether ClientInfo was sent with the request; `serverPublicKey` is given then. Default: false. */
  clientInfoSent?: boolean;
}

/** A connection on which both sides know each other. */
export interface Session {
  readonly stream: FrameStream;
  readonly serverPublicKey: PublicKey;
  readonly box: Box;
}

const NOTHING = Buffer.alloc(0);

/** The client's side of the DERP handshake: ServerKey is read, ClientInfo written. On failure the connection is closed. */
export async function handshake(
  privateKey: PrivateKey,
  conn: Conn,
  info: ClientInfo,
  options: HandshakeOptions,
): Promise<Session> {
  const { serverPublicKey, head = NOTHING, handshakeTimeout = HANDSHAKE_TIMEOUT, signal } = options;
  const stream = new FrameStream(
    conn,
    Buffer.from(head), // a copy: messages are parts of it
    serverPublicKey === undefined ? MAX_SERVER_KEY_SIZE : MAX_CLIENT_FRAME_SIZE,
  );
  const deadline = setTimeout(() => {
    stream.abort(new DerpError('ERR_DERP_TIMEOUT', `no DERP handshake within ${handshakeTimeout} ms`));
  }, handshakeTimeout);
  const unhear = onAbort(signal, (error) => stream.abort(error));
  try {
    const relay = serverPublicKey ?? serverKeyOf(await nextFrame(stream));
    if (options.refuseSelf) refuseOwnKey(relay, privateKey);
    stream.maxFrameSize = MAX_CLIENT_FRAME_SIZE;
    const box = new Box(relay, privateKey);
    if (!options.clientInfoSent) await stream.write(sealClientInfo(info, privateKey.publicKey, box));
    return { stream, serverPublicKey: relay, box };
  } catch (error) {
    stream.abort(error as DerpError);
    throw error;
  } finally {
    clearTimeout(deadline);
    unhear();
  }
}

/** @throws DerpError `ERR_DERP_SELF_CONNECT` when the relay dialled is the one that dials */
export function refuseOwnKey(relay: PublicKey, own: PrivateKey): void {
  if (!relay.equals(own.publicKey)) return;
  throw new DerpError('ERR_DERP_SELF_CONNECT', 'the relay dialled has the key of the one that dials');
}

/** The next frame of the stream, as soon as it is whole; rejects with the stream's failure. */
export function nextFrame(stream: FrameStream): Promise<Frame> {
  return new Promise((resolve, reject) => {
    stream.onActivity = () => {
      const frame = stream.next();
      if (frame === undefined && stream.failure === undefined) return;
      stream.onActivity = () => {};
      if (frame !== undefined) resolve(frame);
      else reject(stream.failure);
    };
    stream.onActivity();
  });
}

function serverKeyOf({ type, body }: Frame): PublicKey {
  if (type !== FrameType.SERVER_KEY) {
    throw new DerpError(
      'ERR_DERP_BAD_HANDSHAKE',
      `the first frame has type ${type}, needs ServerKey: this is not a DERP relay`,
    );
  }
  return readServerKey(body);
}
