/** UDP port of STUN (RFC 8489). */
export const STUN_PORT = 3_478;

/**
 * Answers that one source prefix gets a second. A client asks a few times a minute, so this is enough for 100,000 clients behind one
 * carrier's NAT; an answer is smaller than its request, or by a tenth larger over IPv6, so floods gain nothing.
 */
export const STUN_ANSWER_RATE = 10_000;
