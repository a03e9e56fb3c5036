import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { KEY_LENGTH, PrivateKey, PublicKey } from '../dist/protocol/key.js';
import { parseMeshKey } from '../dist/protocol/mesh_key.js';

// RFC 7748, section 6.1: Alice's keys.
const ALICE_SECRET = '77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a';
const ALICE_PUBLIC = '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a';

describe('a public key', () => {
  const hex = '00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff';
  const key = PublicKey.fromHex(hex);

  it('reads and writes nodekey: texts, either case in, lower case out', () => {
    expect(PublicKey.parse(`nodekey:${hex.toUpperCase()}`).toString()).toBe(`nodekey:${hex}`);
    expect(key.hex).toBe(hex);
    expect(JSON.stringify({ key })).toBe(`{"key":"nodekey:${hex}"}`);
    expect(inspect(key)).toBe(`nodekey:${hex}`);
  });

  it('has the short form of log lines', () => {
    expect(key.shortString()).toBe(`[${Buffer.from(hex, 'hex').toString('base64').slice(0, 5)}]`);
  });

  it('cannot be changed from outside', () => {
    const bytes = new Uint8Array(Buffer.from(hex, 'hex'));
    const copied = PublicKey.fromBytes(bytes);
    bytes.fill(0);
    copied.bytes.fill(0);
    expect(copied.equals(key)).toBe(true);
  });

  it('compares by bytes', () => {
    expect(key.equals(PublicKey.fromHex(`ff${hex.slice(2)}`))).toBe(false);
    expect(key.isZero).toBe(false);
    expect(PublicKey.fromBytes(new Uint8Array(KEY_LENGTH)).isZero).toBe(true);
  });

  it.each([
    ['nodekey:', '0 characters'],
    [`nodekey:${hex}0`, '65 characters'],
    [`nodekey:${hex.slice(1)}g`, 'not hexadecimal'],
    [`privkey:${hex}`, 'does not begin with "nodekey:"'],
    [`NODEKEY:${hex}`, 'does not begin with "nodekey:"'],
    [`nodekey:${hex.slice(1)}\n`, 'not hexadecimal'],
  ])('refuses %j', (text, why) => {
    expect(() => PublicKey.parse(text)).toThrow(expect.objectContaining({ code: 'ERR_DERP_BAD_KEY' }));
    expect(() => PublicKey.parse(text)).toThrow(why);
  });

  it('refuses other lengths of bytes', () => {
    expect(() => PublicKey.fromBytes(new Uint8Array(31))).toThrow('public key of 31 bytes, needs 32');
  });
});

describe('a private key', () => {
  it('gives the public key of RFC 7748', () => {
    expect(PrivateKey.parse(`privkey:${ALICE_SECRET}`).publicKey.hex).toBe(ALICE_PUBLIC);
  });

  it('is clamped', () => {
    expect(PrivateKey.fromBytes(Buffer.alloc(32, 0xff)).serialize()).toBe(`privkey:f8${'ff'.repeat(30)}7f`);
    expect(PrivateKey.fromBytes(Buffer.alloc(32)).serialize()).toBe(`privkey:${'00'.repeat(31)}40`);
  });

  it('survives serialize and parse', () => {
    const key = PrivateKey.generate();
    expect(PrivateKey.parse(key.serialize()).publicKey.equals(key.publicKey)).toBe(true);
    expect(PrivateKey.parse(key.serialize()).serialize()).toBe(key.serialize());
  });

  it('never shows its secret', () => {
    const key = PrivateKey.generate();
    const secret = key.serialize().slice('privkey:'.length);
    const shown = [
      String(key),
      JSON.stringify({ key }),
      inspect({ key }, { showHidden: true, depth: 9 }),
      `${inspect(key)}`,
    ];
    for (const text of shown) {
      expect(text).not.toContain(secret);
      expect(text).toContain(key.publicKey.hex);
    }
    expect(Object.keys(key)).toEqual(['publicKey']);
  });

  it('says what is wrong with a text, without the text', () => {
    const bad = `privkey:${'5ec2e7'.repeat(10)}5ec`;
    expect(() => PrivateKey.parse(bad)).toThrow(
      'private key of 63 characters, needs 64 hexadecimal digits after "privkey:"',
    );
    expect(() => PrivateKey.parse(bad)).not.toThrow('5ec2e7');
    expect(() => PrivateKey.parse('x')).toThrow('does not begin with "privkey:"');
  });
});

describe('a mesh key', () => {
  const key = 'ab'.repeat(32);

  it('is the same 32 bytes in either case', () => {
    expect(parseMeshKey(key.toUpperCase())).toBe(key);
  });

  it('needs 64 digits, and the error does not show it', () => {
    expect(() => parseMeshKey(key.slice(1))).toThrow('invalid mesh key: 63 characters, needs 64 hexadecimal digits');
  });
});
