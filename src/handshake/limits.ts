/** Bounds of a handshake that no option changes. */

/** Bytes of a ClientInfo that are read ahead at once. Real ones have under 300 bytes, what follows belongs to the shard. */
export const READ_AHEAD = 16 << 10;

/** Nice value of handshake threads: a storm of handshakes must cost handshakes, not packets. */
export const HANDSHAKE_NICE = 5;
