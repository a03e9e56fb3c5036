/** Where certificates go: what answers TLS handshakes. */
export interface Certificate {
  /** PEM: the leaf first, then its intermediates. */
  cert: string;
  /** PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted. */
  key: string;
}

export interface CertificateSink {
  /**
   * Answers handshakes for `name` with `certificates` (of several, one per key type, the first that suits the client) from now on.
   * @param name - a DNS name (any case) that the client must send as SNI; an IP address: clients that connect to that address
   *   and send no SNI or that IP; `*`: everybody whom no other name fits, without SNI too
   * @throws DerpError `ERR_DERP_CERTIFICATE` when a PEM is unreadable or key and certificate do not belong together; what was there stays
   */
  set(name: string, certificates: Certificate[]): void;
  delete(name: string): void;
  /** Answers TLS-ALPN-01 validations (`acme-tls/1`) of `name`. */
  setChallenge(name: string, certificate: Certificate): void;
  deleteChallenge(name: string): void;
  /**
   * Says that `name` will get a certificate: until then its handshakes wait (up to their deadline) instead of failing.
   * The sink calls back `onWanted(name)` (constructor option of the real sink) once per expected name for which a handshake waits.
   */
  expect(name: string): void;
  /** Handshakes for `name` fail again at once. */
  unexpect(name: string): void;
}
