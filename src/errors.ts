import { constants } from 'node:os';

/** Stable codes of {@link DerpError}, each documented where it is thrown; the table of all is in docs/api.md. */
export type DerpErrorCode =
  | 'ERR_DERP_ACME'
  | 'ERR_DERP_ADDON'
  | 'ERR_DERP_BAD_KEY'
  | 'ERR_DERP_BAD_OPTION'
  | 'ERR_DERP_BAD_FRAME'
  | 'ERR_DERP_BAD_HANDSHAKE'
  | 'ERR_DERP_BOX'
  | 'ERR_DERP_BUSY'
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
  | 'ERR_DERP_TLS'
  | 'ABORT_ERR'
  | SystemErrorCode;

/** Codes of the system that `Server.listen` throws as Node's own servers do. It may throw others of the same kind. */
export type SystemErrorCode =
  | 'EACCES'
  | 'EADDRINUSE'
  | 'EADDRNOTAVAIL'
  | 'EAFNOSUPPORT'
  | 'EAI_AGAIN'
  | 'EINVAL'
  | 'EMFILE'
  | 'ENFILE'
  | 'ENOTFOUND';

/** What the system said, as Node's own errors have it. */
export interface SystemErrorDetail {
  /** The call that failed: `listen`, `connect`, `getaddrinfo`. */
  readonly syscall?: string;
  /** The address that it was about. */
  readonly address?: string;
  readonly port?: number;
  /** Negative, as libuv has it. */
  readonly errno?: number;
}

/** Every error that derplane itself throws. */
export class DerpError extends Error implements SystemErrorDetail {
  /** `DerpError`, or `AbortError` when a signal ended the call. */
  override readonly name: string = 'DerpError';
  /** What went wrong, stable over releases. */
  readonly code: DerpErrorCode;
  declare readonly syscall?: string;
  declare readonly address?: string;
  declare readonly port?: number;
  declare readonly errno?: number;

  constructor(code: DerpErrorCode, message: string, options: ErrorOptions & SystemErrorDetail = {}) {
    const { cause, ...detail } = options;
    super(message, cause === undefined ? {} : { cause });
    this.code = code;
    Object.assign(this, detail);
  }
}

/** What Node's signals end calls with: `name` and `code` as Node's own, `cause` is the signal's reason. */
export class DerpAbortError extends DerpError {
  override readonly name = 'AbortError';

  constructor(signal: AbortSignal) {
    super('ABORT_ERR', 'The operation was aborted', { cause: signal.reason });
  }
}

/** What an error of the system says besides its message. */
export function systemDetail(cause: unknown): SystemErrorDetail {
  // Of several addresses that were tried, the first.
  const one: unknown = cause instanceof AggregateError ? cause.errors[0] : cause;
  const { syscall, address, port, errno } = one as NodeJS.ErrnoException & { address?: string; port?: number };
  return {
    ...(syscall !== undefined && { syscall }),
    ...(address !== undefined && { address }),
    ...(port !== undefined && { port }),
    ...(typeof errno === 'number' && { errno }),
  };
}

/** The number of a system error's name, as libuv has it. */
export function errnoOf(code: string): number | undefined {
  const number = (constants.errno as Record<string, number>)[code];
  return number === undefined ? undefined : -number;
}

/** What the system says, without call and path: `EACCES: permission denied` of `EACCES: permission denied, open '/x'`. */
export function reasonOf(error: unknown): string {
  return (error as Error).message.split(',')[0] as string;
}
