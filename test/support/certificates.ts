/** Certificates for tests, of every kind that operators have. */
import { KeyObject, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

const ALGORITHMS = {
  ec: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  rsa: {
    name: 'RSASSA-PKCS1-v1_5',
    hash: 'SHA-256',
    modulusLength: 2048,
    publicExponent: Uint8Array.of(1, 0, 1),
  },
  ed25519: { name: 'Ed25519' },
} as const;

export type KeyType = keyof typeof ALGORITHMS;

export interface TestCertificate {
  cert: string;
  der: Uint8Array;
  key: KeyObject;
  /** PKCS #8. */
  keyPem: string;
}

export interface CertificateWish {
  type?: KeyType;
  /** Alternative names; IP addresses are told apart. Default: `derp.example.com`. */
  names?: string[];
  commonName?: string;
  /** Hexadecimal. */
  serialNumber?: string;
  notBefore?: Date;
  notAfter?: Date;
  /** Default: the certificate signs itself. */
  issuer?: TestCertificate;
  ca?: boolean;
}

const DAY = 86_400_000;

export async function makeCertificate(wish: CertificateWish = {}): Promise<TestCertificate> {
  const { type = 'ec', names = ['derp.example.com'], issuer } = wish;
  const algorithm = ALGORITHMS[type];
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  const subject = `CN=${wish.commonName ?? 'test'}`;
  const certificate = await x509.X509CertificateGenerator.create({
    ...(wish.serialNumber !== undefined && { serialNumber: wish.serialNumber }),
    subject,
    issuer: issuer === undefined ? subject : new x509.X509Certificate(issuer.cert).subject,
    notBefore: wish.notBefore ?? new Date(Date.now() - DAY),
    notAfter: wish.notAfter ?? new Date(Date.now() + 90 * DAY),
    publicKey: keys.publicKey,
    signingKey: issuer === undefined ? keys.privateKey : await signingKey(issuer.key),
    signingAlgorithm: issuer === undefined ? algorithm : ALGORITHMS.ec,
    extensions: [
      new x509.BasicConstraintsExtension(wish.ca ?? false, undefined, true),
      ...(names.length === 0
        ? []
        : [
            new x509.SubjectAlternativeNameExtension(
              names.map((value) => ({ type: /^[\d.]+$|:/.test(value) ? ('ip' as const) : ('dns' as const), value })),
            ),
          ]),
    ],
  });
  const key = KeyObject.from(keys.privateKey);
  return {
    cert: `${certificate.toString('pem')}\n`,
    der: new Uint8Array(certificate.rawData),
    key,
    keyPem: key.export({ type: 'pkcs8', format: 'pem' }) as string,
  };
}

/** A certificate authority, an intermediate of it, and a leaf of that. */
export async function makeChain(wish: CertificateWish = {}) {
  const root = await makeCertificate({ names: [], commonName: 'root', ca: true });
  const intermediate = await makeCertificate({ names: [], commonName: 'intermediate', ca: true, issuer: root });
  const leaf = await makeCertificate({ ...wish, issuer: intermediate });
  return { root, intermediate, leaf };
}

function signingKey(key: KeyObject): Promise<webcrypto.CryptoKey> {
  return webcrypto.subtle.importKey('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), ALGORITHMS.ec, false, [
    'sign',
  ]);
}
