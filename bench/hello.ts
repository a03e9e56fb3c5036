/** Keys of clients, and the bytes with which a client opens its connection. */
import sodium from 'sodium-native';

const CLIENT_INFO = 0x02;
const HEADER_BYTES = 5;
const clientInfo = Buffer.from('{"version":2,"CanAckPings":true}');

export interface KeyPair {
  publicKey: Buffer;
  secretKey: Buffer;
}

export function newKeyPair(): KeyPair {
  const publicKey = Buffer.alloc(sodium.crypto_box_PUBLICKEYBYTES);
  const secretKey = Buffer.alloc(sodium.crypto_box_SECRETKEYBYTES);
  sodium.crypto_box_keypair(publicKey, secretKey);
  return { publicKey, secretKey };
}

/** HTTP upgrade with fast start and the ClientInfo frame right behind it: the relay's key is known, so nothing waits for it. */
export function hello(port: number, relayKey: Buffer, client: KeyPair, path = '/derp'): Buffer {
  const head = [
    `GET ${path} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    'Upgrade: DERP',
    'Connection: Upgrade',
    'Derp-Fast-Start: 1',
    '\r\n',
  ].join('\r\n');
  const nonce = Buffer.alloc(sodium.crypto_box_NONCEBYTES);
  sodium.randombytes_buf(nonce);
  const box = Buffer.alloc(clientInfo.length + sodium.crypto_box_MACBYTES);
  sodium.crypto_box_easy(box, clientInfo, nonce, relayKey, client.secretKey);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt8(CLIENT_INFO, 0);
  header.writeUInt32BE(client.publicKey.length + nonce.length + box.length, 1);
  return Buffer.concat([Buffer.from(head), header, client.publicKey, nonce, box]);
}
