import { createRequire } from 'node:module';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BOX_OVERHEAD, Box, NONCE_LENGTH } from '../dist/protocol/box.js';
import { PrivateKey, PublicKey, secretOf } from '../dist/protocol/key.js';

/** libsodium's own `crypto_box`, which ours must equal. */
const sodium = createRequire(import.meta.url)('sodium-native') as {
  crypto_box_easy(box: Buffer, message: Buffer, nonce: Buffer, publicKey: Uint8Array, secret: Uint8Array): void;
  crypto_box_open_easy(message: Buffer, box: Buffer, nonce: Buffer, publicKey: Uint8Array, secret: Uint8Array): boolean;
};

const privateKeys = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => PrivateKey.fromBytes(bytes));
const messages = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));

describe('the box', () => {
  const own = PrivateKey.generate();
  const peer = PrivateKey.generate();
  const sealed = new Box(peer.publicKey, own).seal(Buffer.from('hello'));

  it('opens what the other side sealed', () => {
    fc.assert(
      fc.property(privateKeys, privateKeys, messages, (a, b, message) => {
        expect(new Box(a.publicKey, b).open(new Box(b.publicKey, a).seal(message))).toEqual(message);
      }),
    );
  });

  it('opens what libsodium sealed, and the other way round', () => {
    fc.assert(
      fc.property(privateKeys, privateKeys, messages, (a, b, message) => {
        const box = new Box(b.publicKey, a).seal(message);
        const opened = Buffer.alloc(message.length);
        const nonce = box.subarray(0, NONCE_LENGTH);
        expect(
          sodium.crypto_box_open_easy(opened, box.subarray(NONCE_LENGTH), nonce, a.publicKey.bytes, secretOf(b)),
        ).toBe(true);
        expect(opened).toEqual(message);
        const theirs = Buffer.alloc(BOX_OVERHEAD + message.length, 7);
        sodium.crypto_box_easy(
          theirs.subarray(NONCE_LENGTH),
          message,
          theirs.subarray(0, NONCE_LENGTH),
          a.publicKey.bytes,
          secretOf(b),
        );
        expect(new Box(b.publicKey, a).open(theirs)).toEqual(message);
      }),
    );
  });

  it('takes a new nonce each time', () => {
    const box = new Box(peer.publicKey, own);
    expect(box.seal(Buffer.from('x'))).not.toEqual(box.seal(Buffer.from('x')));
  });

  it('does not open when any byte is changed', () => {
    const opener = new Box(own.publicKey, peer);
    for (let at = 0; at < sealed.length; at++) {
      const damaged = Buffer.from(sealed);
      damaged[at]! ^= 1;
      expect(() => opener.open(damaged), `byte ${at}`).toThrow(expect.objectContaining({ code: 'ERR_DERP_BOX' }));
    }
  });

  it('does not open for another key, nor when short', () => {
    const stranger = new Box(own.publicKey, PrivateKey.generate());
    expect(() => stranger.open(sealed)).toThrow('box does not open');
    for (let length = 0; length < BOX_OVERHEAD; length++) {
      expect(() => stranger.open(sealed.subarray(0, length))).toThrow(`box of ${length} bytes`);
    }
  });

  it.each([
    ['0', `${'00'.repeat(32)}`],
    ['1', `01${'00'.repeat(31)}`],
    ['a point of order 8', 'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'],
  ])('refuses the public key of low order %s', (_name, hex) => {
    expect(() => new Box(PublicKey.fromHex(hex), own)).toThrow(expect.objectContaining({ code: 'ERR_DERP_BOX' }));
  });
});
