/** The parts of untyped packages that the bench uses. */
declare module 'sodium-native' {
  const sodium: {
    crypto_box_PUBLICKEYBYTES: number;
    crypto_box_SECRETKEYBYTES: number;
    crypto_box_NONCEBYTES: number;
    crypto_box_MACBYTES: number;
    crypto_box_keypair(publicKey: Buffer, secretKey: Buffer): void;
    crypto_box_easy(out: Buffer, message: Buffer, nonce: Buffer, publicKey: Buffer, secretKey: Buffer): void;
    randombytes_buf(out: Buffer): void;
  };
  export default sodium;
}

declare module 'autocannon' {
  interface Result {
    errors: number;
    timeouts: number;
    non2xx: number;
    requests: { total: number };
  }
  interface Options {
    url: string;
    connections: number;
    /** Seconds. */
    duration: number;
    /** Requests per second of all connections together. Default: as many as are answered. */
    overallRate?: number;
  }
  export default function autocannon(options: Options): Promise<Result>;
}
