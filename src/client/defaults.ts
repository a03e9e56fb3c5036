/** Every number of the client, with its unit and reason. */

/** Milliseconds for ServerKey to arrive and ClientInfo to be taken by the socket; the relay allows as long for its side. */
export const HANDSHAKE_TIMEOUT = 10_000;

/** Milliseconds for DNS, TCP, upgrade and handshake of a dialled connection together, as in the reference. */
export const CONNECT_TIMEOUT = 10_000;

/** Milliseconds without a whole frame after which a connection is dead: two KeepAlives (60 s + up to 5 s) are missing. */
export const RECEIVE_TIMEOUT = 120_000;

/** Milliseconds that a ping waits for its pong. */
export const PING_TIMEOUT = 5_000;

/** Milliseconds that the socket may take for a forwarded packet; a mesh link that is slower is better redialled. */
export const FORWARD_TIMEOUT = 5_000;

/** Messages that wait for `recv` before the socket is no longer read. */
export const MAX_QUEUED_MESSAGES = 256;

/** Bytes of messages that wait for `recv` before the socket is no longer read: 16 packets of the largest size. */
export const MAX_QUEUED_BYTES = 1 << 20;

/** Bytes of an HTTP answer's head that are read in search of its end. */
export const MAX_RESPONSE_HEAD = 16 << 10;

/** Bytes of an HTTP error's text that its message quotes. */
export const MAX_ERROR_TEXT = 256;
