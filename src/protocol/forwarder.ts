import type { PublicKey } from './key.js';

/** Something that takes packets to clients of other relays of a region; the usual one is a `RelayClient` with a mesh key. */
export interface PacketForwarder {
  /**
   * Takes `packet` of `source` towards `destination`. DERP may lose packets: a rejection loses this one and no other.
   * @param packet - at most 65,536 bytes; only valid during the call
   */
  forwardPacket(source: PublicKey, destination: PublicKey, packet: Uint8Array): void | Promise<void>;
}
