/** `-sni any`: the certificate of one name for every client. */
import { canonicalHost } from '../host_name.js';
import type { CertificateSink } from '../tls/tls_context.js';

/**
 * A sink that also serves the certificates of `hostname` to clients that ask for a name that has none, or for no name. Handshakes for
 * such names fail while `hostname` has no certificate yet.
 */
export function forAnyName(sink: CertificateSink, hostname: string): CertificateSink {
  const host = canonicalHost(hostname);
  const isHost = (name: string) => canonicalHost(name) === host;
  return {
    set: (name, certificates) => {
      sink.set(name, certificates);
      if (isHost(name)) sink.set('*', certificates);
    },
    delete: (name) => {
      sink.delete(name);
      if (isHost(name)) sink.delete('*');
    },
    setChallenge: (name, certificate) => sink.setChallenge(name, certificate),
    deleteChallenge: (name) => sink.deleteChallenge(name),
    expect: (name) => sink.expect(name),
    unexpect: (name) => sink.unexpect(name),
  };
}
