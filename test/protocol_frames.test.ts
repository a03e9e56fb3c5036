import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  closePeerFrame,
  FRAME_HEADER_LENGTH,
  FrameType,
  forwardPacketFrame,
  frameOf,
  MAX_CLIENT_FRAME_SIZE,
  MAX_PACKET_SIZE,
  notePreferredFrame,
  pingFrame,
  pongFrame,
  readServerKey,
  sendPacketFrame,
  serverKeyFrame,
  watchConnsFrame,
} from '../dist/protocol/frame.js';
import { type Frame, FrameReader } from '../dist/protocol/frame_reader.js';
import { PublicKey } from '../dist/protocol/key.js';

const A = PublicKey.fromBytes(Buffer.alloc(32, 0xaa));
const B = PublicKey.fromBytes(Buffer.alloc(32, 0xbb));
const AA = 'aa'.repeat(32);
const BB = 'bb'.repeat(32);

describe('frames have these bytes', () => {
  it.each([
    ['ServerKey', serverKeyFrame(A), `010000002844455250f09f9491${AA}`],
    ['SendPacket', sendPacketFrame(A, Buffer.from('hi')), `0400000022${AA}6869`],
    ['SendPacket, empty', sendPacketFrame(A, Buffer.alloc(0)), `0400000020${AA}`],
    ['ForwardPacket', forwardPacketFrame(A, B, Buffer.from('hi')), `0a00000042${AA}${BB}6869`],
    ['NotePreferred, home', notePreferredFrame(true), '070000000101'],
    ['NotePreferred, not home', notePreferredFrame(false), '070000000100'],
    ['WatchConns', watchConnsFrame(), '1000000000'],
    ['ClosePeer', closePeerFrame(B), `1100000020${BB}`],
    ['Ping', pingFrame(Buffer.from('12345678')), '12000000083132333435363738'],
    ['Pong', pongFrame(Buffer.from('12345678')), '13000000083132333435363738'],
  ])('%s', (_name, frame, hex) => {
    expect(frame.toString('hex')).toBe(hex);
  });

  it('a packet may have 65,536 bytes and no more', () => {
    expect(sendPacketFrame(A, Buffer.alloc(MAX_PACKET_SIZE))).toHaveLength(5 + 32 + 65_536);
    for (const build of [(p: Buffer) => sendPacketFrame(A, p), (p: Buffer) => forwardPacketFrame(A, B, p)]) {
      expect(() => build(Buffer.alloc(MAX_PACKET_SIZE + 1))).toThrow(
        expect.objectContaining({ code: 'ERR_DERP_PACKET_TOO_BIG' }),
      );
    }
  });

  it('a ping has 8 bytes', () => {
    expect(() => pingFrame(Buffer.alloc(7))).toThrow('ping or pong of 7 bytes, needs 8');
    expect(() => pongFrame(Buffer.alloc(9))).toThrow('ping or pong of 9 bytes, needs 8');
  });
});

describe('a ServerKey', () => {
  const body = serverKeyFrame(A).subarray(FRAME_HEADER_LENGTH);

  it('is read, whatever follows the key', () => {
    expect(readServerKey(body).equals(A)).toBe(true);
    expect(readServerKey(Buffer.concat([body, Buffer.alloc(900)])).equals(A)).toBe(true);
  });

  it('is refused when short or without the magic', () => {
    expect(() => readServerKey(body.subarray(0, 39))).toThrow('ServerKey of 39 bytes, needs 40');
    for (let at = 0; at < 8; at++) {
      const bad = Buffer.from(body);
      bad[at]! ^= 1;
      expect(() => readServerKey(bad)).toThrow(expect.objectContaining({ code: 'ERR_DERP_BAD_HANDSHAKE' }));
    }
  });
});

function drain(reader: FrameReader): Frame[] {
  const frames: Frame[] = [];
  for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.push(frame);
  return frames;
}

describe('the frame reader', () => {
  const frames = fc.array(fc.record({ type: fc.nat(255), body: fc.uint8Array({ maxLength: 60 }) }), { maxLength: 12 });

  it('finds the same frames however the stream is cut', () => {
    fc.assert(
      fc.property(frames, fc.array(fc.nat(40), { maxLength: 60 }), fc.boolean(), (wanted, cuts, eager) => {
        const stream = Buffer.concat(wanted.map(({ type, body }) => frameOf(type, body)));
        const reader = new FrameReader(MAX_CLIENT_FRAME_SIZE);
        const found: Frame[] = [];
        let at = 0;
        for (const length of [...cuts, stream.length]) {
          reader.push(stream.subarray(at, at + length));
          at = Math.min(at + length, stream.length);
          if (eager) found.push(...drain(reader));
        }
        found.push(...drain(reader));
        expect(found.map(({ type, body }) => ({ type, body: new Uint8Array(body) }))).toEqual(wanted);
        expect(reader.hasPending).toBe(false);
      }),
    );
  });

  it('finds three frames split at every byte', () => {
    const stream = Buffer.concat([
      frameOf(6),
      sendPacketFrame(A, Buffer.from('packet')),
      frameOf(0x14, Buffer.from('x')),
    ]);
    for (let cut = 0; cut <= stream.length; cut++) {
      const reader = new FrameReader(100);
      reader.push(stream.subarray(0, cut));
      const found = drain(reader);
      reader.push(stream.subarray(cut));
      found.push(...drain(reader));
      expect(
        found.map((frame) => [frame.type, frame.body.length]),
        `cut at ${cut}`,
      ).toEqual([
        [6, 0],
        [4, 38],
        [0x14, 1],
      ]);
    }
  });

  it('does not copy a frame that lies in one chunk', () => {
    const chunk = frameOf(FrameType.HEALTH, Buffer.from('abc'));
    const reader = new FrameReader(100);
    reader.push(chunk);
    expect(reader.next()?.body.buffer).toBe(chunk.buffer);
  });

  it('refuses a frame over the limit as soon as its header is there, and for good', () => {
    const reader = new FrameReader(1024);
    reader.push(Buffer.from('0500000401', 'hex'));
    for (let call = 0; call < 2; call++) {
      expect(() => reader.next()).toThrow('frame 0x05 of 1025 bytes, at most 1024 are taken');
    }
  });

  it('takes a frame of exactly the limit', () => {
    const reader = new FrameReader(1024);
    reader.push(frameOf(5, Buffer.alloc(1024)));
    expect(reader.next()?.body).toHaveLength(1024);
  });

  it('reads a megabyte that comes byte by byte in linear time', () => {
    const frame = frameOf(5, Buffer.alloc(MAX_CLIENT_FRAME_SIZE));
    const reader = new FrameReader(MAX_CLIENT_FRAME_SIZE);
    let found: Frame | undefined;
    for (let at = 0; at < frame.length; at++) {
      reader.push(frame.subarray(at, at + 1));
      found = reader.next();
    }
    expect(found?.body).toHaveLength(MAX_CLIENT_FRAME_SIZE);
  });
});
