/** What nodes will not like about a chain that is well-formed. */
import { X509Certificate } from 'node:crypto';
import { rootCertificates } from 'node:tls';
import { DerpError } from '../errors.js';
import { rootsPem } from '../tls/roots.js';

/** Whether a certificate is signed by its own key. */
export function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.subject === certificate.issuer && isIssuedBy(certificate, certificate);
}

/**
 * Finds faults for which nodes refuse the chain, though this side could serve it.
 *
 * @param chain - the leaf first; not self-signed
 * @param now - milliseconds since 1970
 * @returns a text for each
 */
export function chainFaults(chain: readonly X509Certificate[], now = Date.now()): string[] {
  return [missingIssuer(chain), ...chain.slice(1).map((each) => outOfDate(each, now))].filter(
    (fault) => fault !== undefined,
  );
}

/** Nodes know roots only: what lies between a root and the leaf must be sent. */
function missingIssuer([leaf, ...others]: readonly X509Certificate[]): string | undefined {
  if (leaf === undefined || others.some((other) => isIssuedBy(leaf, other))) return undefined;
  if (knownRoots().some((root) => isIssuedBy(leaf, root))) return undefined;
  const found =
    others.length === 0 ? 'the file holds this certificate only' : 'no other certificate in the file issued it';
  return (
    `${found}, and its issuer ${nameOf(leaf.issuer)} is not a root that this machine trusts: many nodes refuse it. ` +
    'Put the intermediate certificates behind it (fullchain.pem); if the issuer is a root of your own, nodes must trust that'
  );
}

function outOfDate(certificate: X509Certificate, now: number): string | undefined {
  const name = nameOf(certificate.subject);
  if (now > Date.parse(certificate.validTo)) {
    return `the intermediate certificate ${name} in the file expired on ${isoDate(certificate.validTo)}: nodes may refuse the chain; get the current one from the authority`;
  }
  if (now < Date.parse(certificate.validFrom)) {
    return `the intermediate certificate ${name} in the file is not valid before ${isoDate(certificate.validFrom)}; is the clock right?`;
  }
  return undefined;
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  if (certificate.issuer !== issuer.subject) return false;
  try {
    return certificate.verify(issuer.publicKey);
  } catch {
    return false; // a key of a kind that OpenSSL does not know
  }
}

/** Read each time: it is rare, and costs some 20 ms and much memory. */
function knownRoots(): X509Certificate[] {
  return (trustedPem().match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).flatMap((pem) => {
    try {
      return [new X509Certificate(pem)];
    } catch {
      return []; // a bundle of the system may hold what this OpenSSL cannot read
    }
  });
}

function trustedPem(): string {
  try {
    return rootsPem(process.env);
  } catch (error) {
    if (!(error instanceof DerpError)) throw error;
    return rootCertificates.join('\n'); // dialling reports that a variable names an unreadable file
  }
}

/** The common name of a subject or an issuer, else all of it. */
function nameOf(name: string | undefined): string {
  const lines = name?.split('\n') ?? [];
  const common = lines.find((line) => line.startsWith('CN='))?.slice('CN='.length);
  return JSON.stringify((common ?? lines.join(', ')).slice(0, 200));
}

function isoDate(text: string): string {
  return new Date(text).toISOString();
}
