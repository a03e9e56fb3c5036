/** Stable codes of {@link DerpError}, each documented where it is thrown; the table of all is in docs/api.md. */
export type DerpErrorCode =
  | 'ERR_DERP_ACME'
  | 'ERR_DERP_BAD_KEY'
  | 'ERR_DERP_BAD_OPTION'
  | 'ERR_DERP_BAD_FRAME'
  | 'ERR_DERP_BAD_HANDSHAKE'
  | 'ERR_DERP_BOX'
  | 'ERR_DERP_CERTIFICATE'
  | 'ERR_DERP_CLIENT_INFO'
  | 'ERR_DERP_CLOSED'
  | 'ERR_DERP_CONNECT'
  | 'ERR_DERP_CONSISTENCY'
  | 'ERR_DERP_HTTP_STATUS'
  | 'ERR_DERP_NO_MESH_KEY'
  | 'ERR_DERP_PACKET_TOO_BIG'
  | 'ERR_DERP_SELF_CONNECT'
  | 'ERR_DERP_SHARD_LOST'
  | 'ERR_DERP_TIMEOUT'
  | 'ERR_DERP_TLS';

/** Every error that derplane itself throws. */
export class DerpError extends Error {
  override readonly name = 'DerpError';
  /** What went wrong, stable over releases. */
  readonly code: DerpErrorCode;

  constructor(code: DerpErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What the system says, without call and path: `EACCES: permission denied` of `EACCES: permission denied, open '/x'`. */
export function reasonOf(error: unknown): string {
  return (error as Error).message.split(',')[0] as string;
}
