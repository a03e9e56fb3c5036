/** Every number of the client, with its unit and reason. */

/** Milliseconds that timeouts and intervals may be: a day; longer times are surely mistakes, and overflow Node's timers. */
export const TIMEOUT_RANGE = { min: 1, max: 86_400_000 };

/** Milliseconds for ServerKey to arrive and ClientInfo to be taken by the socket; the relay allows as long for its side. */
export const HANDSHAKE_TIMEOUT = 10_000;

/** Milliseconds for DNS, TCP, upgrade and handshake of a dialled connection together, as in derper. */
export const CONNECT_TIMEOUT = 10_000;

/** Milliseconds without a whole frame after which a connection is dead: two KeepAlives (60 s + up to 5 s) are missing. */
export const RECEIVE_TIMEOUT = 120_000;

/** Keys that a watch loop knows; more are passed over, so that a relay cannot fill the memory. As many as a mesh link may bring. */
export const MAX_WATCHED_KEYS = 1 << 20;

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

/** Milliseconds between two attempts to reach a relay that announced its restart. */
export const RESTART_RETRY_INTERVAL = 250;

/** Part of the announced time that a client waits longer, at random, so that not all come back at once. */
export const RESTART_STAGGER = 0.5;

/** Milliseconds that a client obeys at most when a relay asks it to stay away or to keep trying. */
export const MAX_RESTART_WAIT = 60_000;

/** Milliseconds between the attempts of a watch loop, as in derper. */
export const WATCH_RETRY_INTERVAL = 5_000;

/** Milliseconds after the last PeerPresent of a new connection when the first flood is taken for complete. */
export const FLOOD_QUIET_TIME = 200;

/** Milliseconds after connecting until the first flood counts as complete if no client is connected. */
export const FLOOD_WAIT = 2_000;
