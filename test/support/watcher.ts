/** A mesh peer that watches who comes and goes, as a relay of the same region does. */
import { Frame, frame, KEY_LENGTH, type RawClient, type RawFrame } from './raw_client.js';
import type { TestRelay } from './relay.js';

/** Flags of PeerPresent. */
export const PresentFlag = { regular: 1, meshPeer: 2, prober: 4, notIdeal: 8 } as const;

/** Bytes of a PeerPresent body: key, address, port, flags. */
export const PRESENT_LENGTH = KEY_LENGTH + 16 + 2 + 1;

const DISCONNECTED = 0;
const V4_IN_V6 = '00000000000000000000ffff';

export interface Present {
  kind: 'present';
  key: string;
  /** Hexadecimal: 8 digits for IPv4, 32 for IPv6. */
  ip: string;
  port: number;
  flags: number;
}

export interface Gone {
  kind: 'gone';
  key: string;
}

export type Change = Present | Gone;

export class Watcher {
  readonly client: RawClient;

  constructor(client: RawClient) {
    this.client = client;
  }

  /** A mesh peer of `relay` that has asked to watch; its own connection is the only thing that it was not told of yet. */
  static async join(relay: TestRelay, options: Parameters<TestRelay['connect']>[0] & { meshKey: string }) {
    const watcher = new Watcher(await relay.connect(options));
    await watcher.ask();
    return watcher;
  }

  /** Asks to watch. */
  ask(): Promise<void> {
    return this.client.write(frame(Frame.watchConns));
  }

  get key(): string {
    return this.client.publicKey.hex;
  }

  /** The next change; fails when another frame but KeepAlive comes. */
  async next(): Promise<Change> {
    for (;;) {
      const next = await this.client.nextFrame('PeerPresent or PeerGone');
      if (next.type !== Frame.keepAlive) return parseChange(next);
    }
  }

  /** The next `count` changes, each of which must tell of another key that is present: by key. */
  async flood(count: number): Promise<Map<string, Present>> {
    const present = new Map<string, Present>();
    while (present.size < count) {
      const change = await this.next();
      if (change.kind === 'gone') throw new Error(`${change.key} is gone, ${present.size} of ${count} were told`);
      if (present.has(change.key))
        throw new Error(`${change.key} is told twice, ${present.size} of ${count} were told`);
      present.set(change.key, change);
    }
    return present;
  }

  /** The next change must be that `client` is present. */
  async expectPresent(client: RawClient): Promise<Present> {
    const change = await this.next();
    if (change.kind !== 'present' || change.key !== client.publicKey.hex) {
      throw new Error(`expected that ${client.publicKey.hex} is present, got ${JSON.stringify(change)}`);
    }
    return change;
  }

  /** The next change must be that the key of `client` is gone. */
  async expectGone(client: RawClient): Promise<void> {
    const change = await this.next();
    if (change.kind !== 'gone' || change.key !== client.publicKey.hex) {
      throw new Error(`expected that ${client.publicKey.hex} is gone, got ${JSON.stringify(change)}`);
    }
  }

  /** Replays changes into `present` until `done`. */
  async replay(present: Set<string>, done: (change: Change) => boolean): Promise<void> {
    for (;;) {
      const change = await this.next();
      if (change.kind === 'present') present.add(change.key);
      else present.delete(change.key);
      if (done(change)) return;
    }
  }
}

/** Reads PeerPresent or PeerGone(disconnected). */
export function parseChange({ type, body }: RawFrame): Change {
  const key = body.subarray(0, KEY_LENGTH).toString('hex');
  if (type === Frame.peerGone) {
    if (body.length !== KEY_LENGTH + 1) throw new Error(`PeerGone of ${body.length} bytes`);
    if (body.readUInt8(KEY_LENGTH) !== DISCONNECTED)
      throw new Error(`PeerGone for reason ${body.readUInt8(KEY_LENGTH)}`);
    return { kind: 'gone', key };
  }
  if (type !== Frame.peerPresent) throw new Error(`frame 0x${type.toString(16)} instead of PeerPresent or PeerGone`);
  if (body.length !== PRESENT_LENGTH) throw new Error(`PeerPresent of ${body.length} bytes`);
  const ip = body.subarray(KEY_LENGTH, KEY_LENGTH + 16).toString('hex');
  return {
    kind: 'present',
    key,
    ip: ip.startsWith(V4_IN_V6) ? ip.slice(V4_IN_V6.length) : ip,
    port: body.readUInt16BE(KEY_LENGTH + 16),
    flags: body.readUInt8(KEY_LENGTH + 18),
  };
}
