/** Every number of the server with its unit and reason; the values are those of derper where it has the same limit. */

/** Packets in each of a client's two queues; derper's. */
export const QUEUE_DEPTH = 32;

/** Milliseconds; derper's `-tcp-write-timeout`. */
export const WRITE_TIMEOUT = 2_000;

/** Milliseconds. A link between relays carries many clients' packets, so it gets more patience; derper's. */
export const MESH_WRITE_TIMEOUT = 30_000;

/** Milliseconds; derper's. Clients give up after 120 s without a frame. */
export const KEEP_ALIVE_INTERVAL = 60_000;

/** Milliseconds; derper's. A measurement is one system call. */
export const RTT_INTERVAL = 10_000;

/** Milliseconds for the request head. derper gives 30 s; no real client needs more than a few round trips. */
export const REQUEST_TIMEOUT = 10_000;

/** Milliseconds for ServerKey to be written and ClientInfo to be read; derper's. */
export const CLIENT_INFO_TIMEOUT = 10_000;

/** Milliseconds for a decision of an embedder's hook; as derper gives an admission server. */
export const ADMIT_TIMEOUT = 5_000;

/** Milliseconds for the first byte of a connection. Clients speak first and at once, so a lost packet may be sent again twice meanwhile. */
export const FIRST_BYTE_TIMEOUT = 3_000;

/** Handshakes at once. A pending one costs about 10 kB over all threads, so this is 40 MB. */
export const MAX_HANDSHAKES = 4_096;

/**
 * One source address may have this part of {@link MAX_HANDSHAKES} in progress, 256 of them, before its silent connections make room for its
 * newcomers. A handshake takes three round trips, so this lets a thousand clients a second in through one address (a provider's NAT, a proxy)
 * even if each takes a quarter of a second; probes and monitoring need one or two.
 */
export const SOURCE_SHARE = 1 / 16;

/** Least such share, so that a small number of handshakes does not mean one at a time. */
export const MIN_SOURCE_SHARE = 16;

/** Bytes that handshakes hold together: 64 KiB for each of {@link MAX_HANDSHAKES}, of which TLS takes 48. */
export const MAX_HANDSHAKE_BYTES = 256 << 20;

/** Bytes in the send queues of one shard; a single client can fill 4 MiB (64 packets of 64 KiB). */
export const MAX_QUEUE_BYTES = 256 << 20;

/** Bytes of all rings together. */
export const RING_BYTES = 64 << 20;

/** Bytes of the smallest ring: three records of the largest size fit, so that one always does however the wrap falls. */
export const MIN_RING_BYTES = 256 << 10;

/** Bytes of the largest ring: beyond, a ring is longer than the second-level cache and packets in it only age. */
export const MAX_RING_BYTES = 4 << 20;

/** Shards of one relay: they are named by the bits of 64-bit words. */
export const MAX_SHARDS = 63;

/** Threads that do handshakes, unless more are asked for: each does thousands a second, and costs as much memory as a shard. */
export const MAX_DEFAULT_HANDSHAKE_THREADS = 8;

/** Bytes that an idle shard or handshake thread costs; nearly all of it is Node's for any thread (9 to 12 MB). */
export const MEMORY_PER_THREAD = 12 << 20;

/** Bytes that an idle relay costs without its threads. */
export const MEMORY_WITHOUT_THREADS = 75 << 20;

/** Milliseconds of idleness before TCP keepalive probes; derper's. */
export const TCP_KEEPALIVE_TIME = 600_000;

/** Milliseconds; derper's. */
export const TCP_USER_TIMEOUT = 15_000;

/** Milliseconds for DNS, TCP, upgrade and handshake of a mesh link together; derper's. */
export const MESH_DIAL_TIMEOUT = 10_000;

/** Milliseconds; the longest wait before a mesh link is dialled again. derper always waits so long. */
export const MESH_RETRY_INTERVAL = 5_000;

/** Milliseconds before a mesh link that ended is dialled again for the first time. */
export const MESH_FIRST_RETRY = 250;

/** Milliseconds; the longest such wait while {@link MESH_QUICK_TIME} lasts: a relay that restarted is back within a second of listening. */
export const MESH_QUICK_RETRY = 800;

/** Milliseconds from the end of a mesh link for which it is dialled again quickly. */
export const MESH_QUICK_TIME = 60_000;

/** Milliseconds from one look at the addresses of a mesh entry `dns:` to the next. */
export const MESH_DNS_INTERVAL = 10_000;

/** Addresses of one mesh entry `dns:` that are linked to; regions have a few relays. */
export const MESH_DNS_MAX_ADDRESSES = 64;

/** Milliseconds between two log lines that say the same of a link's trouble; each attempt would say it. */
export const MESH_REPEAT_INTERVAL = 600_000;

/** Bytes, the least burst of a receive limit: what the largest packet costs, so that every frame fits; derper's. */
export const MIN_RATE_BURST = 65_568;

/** Milliseconds that clients of a relay that ends are asked to keep trying; derper's advice is a few seconds. */
export const RESTART_TRY_FOR = 5_000;

/** Milliseconds between two looks at how many clients a relay that drains still has. */
export const DRAIN_POLL_INTERVAL = 20;
