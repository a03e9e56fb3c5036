/** What a file holds in place of the PEM that it should hold, and what to do about it. */
import { createPrivateKey, X509Certificate } from 'node:crypto';

/** What was looked for. */
export type Wanted = 'certificate' | 'private key';

/** PEM blocks that are often taken for what was wanted, by their labels. */
const OTHER_BLOCKS: [label: RegExp, what: (path: string) => string][] = [
  [
    /^(?:NEW )?CERTIFICATE REQUEST$/,
    () => 'it holds a certificate request; put the certificate here that the authority issued',
  ],
  [/^PKCS7$|^CMS$/, (path) => `it holds PKCS #7; convert it: openssl pkcs7 -print_certs -in ${path} -out NEW`],
  [/^OPENSSH PRIVATE KEY$/, (path) => `it holds a key of OpenSSH; convert it: ssh-keygen -p -m PKCS8 -f ${path}`],
  [/PRIVATE KEY$/, () => 'it holds a private key'],
  [/^CERTIFICATE$/, () => 'it holds a certificate'],
  [/PUBLIC KEY$/, () => 'it holds a public key only'],
];

/**
 * Says why `text` has no PEM block of the kind wanted.
 *
 * @param text - the file's bytes as latin1
 */
export function diagnose(text: string, wanted: Wanted, path: string): string {
  const label = wanted === 'certificate' ? 'CERTIFICATE' : 'PRIVATE KEY';
  const lacking = `no ${wanted} in it`;
  if (text.trim() === '') return `${lacking}: the file is empty`;
  const labels = [...text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----/g)].map(([, found]) => found!);
  for (const [pattern, what] of OTHER_BLOCKS) {
    if (labels.some((found) => pattern.test(found) && found !== label)) return `${lacking}: ${what(path)}`;
  }
  if (labels.length > 0) return `${lacking}: the block "-----BEGIN ${labels[0]}-----" is damaged or cut off`;
  const binary = diagnoseBinary(text, path);
  if (binary !== undefined) return `${lacking}: ${binary}`;
  return `${lacking}; it takes PEM that begins with "-----BEGIN ${label}-----"`;
}

function diagnoseBinary(text: string, path: string): string | undefined {
  if (/^(?:\xff\xfe|\xfe\xff)/.test(text)) return 'it is UTF-16 text; save it as UTF-8';
  const bytes = Buffer.from(text, 'latin1');
  if (bytes[0] !== 0x30) return undefined; // no ASN.1 sequence
  if (isPkcs12(bytes)) {
    return `it is PKCS #12; convert it: openssl pkcs12 -in ${path} -nokeys -out NEW.crt, and -nocerts -nodes -out NEW.key`;
  }
  if (parses(() => new X509Certificate(bytes))) {
    return `it is a certificate in DER; convert it: openssl x509 -inform der -in ${path} -out NEW`;
  }
  const isKey = (['pkcs8', 'pkcs1', 'sec1'] as const).some((type) =>
    parses(() => createPrivateKey({ key: bytes, format: 'der', type })),
  );
  return isKey ? `it is a private key in DER; convert it: openssl pkey -inform der -in ${path} -out NEW` : undefined;
}

/** A sequence that begins with the integer 3, its version. */
function isPkcs12(bytes: Buffer): boolean {
  const lengthBytes = bytes[1]! < 0x80 ? 0 : bytes[1]! & 0x7f;
  return bytes.subarray(2 + lengthBytes, 5 + lengthBytes).equals(Buffer.of(0x02, 0x01, 0x03));
}

function parses(parse: () => unknown): boolean {
  try {
    parse();
    return true;
  } catch {
    return false; // something else
  }
}
