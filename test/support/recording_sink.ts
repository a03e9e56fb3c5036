/** A sink of certificates that remembers what it was asked for, and checks certificates as Node's TLS does. */
import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { createSecureContext } from 'node:tls';
import type { CertificateSink, CertificateText } from '../../dist/tls/tls_context.js';

interface Call {
  method: keyof CertificateSink;
  name: string;
}

export class RecordingSink implements CertificateSink {
  /** Everything that was asked of it, in order. */
  readonly calls: Call[] = [];
  readonly certificates = new Map<string, readonly CertificateText[]>();
  readonly challenges = new Map<string, CertificateText>();
  readonly expected = new Set<string>();
  /** Thrown by `set`. */
  refusal: Error | undefined;
  readonly #waiting = new Set<() => void>();

  set(name: string, certificates: readonly CertificateText[]): void {
    if (this.refusal !== undefined) throw this.refusal;
    for (const certificate of certificates) check(certificate, name);
    this.certificates.set(name, certificates);
    this.#note('set', name);
  }

  delete(name: string): void {
    this.certificates.delete(name);
    this.#note('delete', name);
  }

  setChallenge(name: string, certificate: CertificateText): void {
    this.challenges.set(name, certificate);
    this.#note('setChallenge', name);
  }

  deleteChallenge(name: string): void {
    this.challenges.delete(name);
    this.#note('deleteChallenge', name);
  }

  expect(name: string): void {
    this.expected.add(name);
    this.#note('expect', name);
  }

  unexpect(name: string): void {
    this.expected.delete(name);
    this.#note('unexpect', name);
  }

  /** The certificate that `name` is answered with first. */
  served(name: string): CertificateText | undefined {
    return this.certificates.get(name)?.[0];
  }

  /** Resolves once `name` is answered with a chain that begins with `cert`. */
  serving(name: string, cert: string): Promise<void> {
    return this.until(() => this.served(name)?.cert.startsWith(cert) === true);
  }

  /** Resolves once `holds`. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  #note(method: Call['method'], name: string): void {
    this.calls.push({ method, name });
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}

function check({ cert, key }: CertificateText, name: string): void {
  createSecureContext({ cert, key });
  const leaf = new X509Certificate(cert);
  const valid = name === '*' || (isIP(name) === 0 ? leaf.checkHost(name) : leaf.checkIP(name));
  if (!valid) throw new Error(`a certificate for ${leaf.subjectAltName} was set for ${name}`);
}
