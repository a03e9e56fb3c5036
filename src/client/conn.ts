/**
 * What a client needs of a connection to a relay. Node's `net.Socket`, `tls.TLSSocket` and any binary `stream.Duplex` fit. Nothing else
 * may read it or write to it from then on.
 */
export interface Conn {
  /** Queues bytes; `callback` is called once they were taken, or with the error that prevented it. */
  write(chunk: Uint8Array, callback: (error?: Error | null) => void): boolean;
  on(event: 'data', listener: (chunk: Buffer) => void): unknown;
  on(event: 'end' | 'close', listener: () => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  pause(): unknown;
  resume(): unknown;
  /** Closes both directions at once; pending writes fail. */
  destroy(): unknown;
  /** Called once with `true` where it exists: packets are not to wait for each other. */
  setNoDelay?(noDelay: boolean): unknown;
}
