/** The end of a connection whose client may still be sending. */
import type { Duplex } from 'node:stream';
import { type RefusalCode, refusalAnswer } from './refusal.js';

/**
 * Milliseconds that a connection is read, and what comes thrown away, after its last answer. A socket that is closed with bytes unread is
 * reset, and the answer may be lost on its way.
 */
const LINGER = 500;
/** Connections that are read on so at once, in the process; beyond, they close as soon as the answer is written. */
const MAX_LINGERING = 1_024;

let lingering = 0;

/**
 * A page server's method of this name ends the connection of a malformed request. A relay's listener reads requests before its page server
 * does, and asks it by this.
 */
export const REFUSE: unique symbol = Symbol('derplane.refuse');

/** What has {@link REFUSE}. */
export interface Refuser {
  [REFUSE](socket: Duplex, code: RefusalCode): void;
}

/** Answers a malformed request and closes. */
export function refuseRequest(socket: Duplex, code: RefusalCode): void {
  closeAfter(socket, refusalAnswer(code));
}

/** Sends what there is to say, and closes once the client has had the time to read it. */
export function closeAfter(socket: Duplex, lastWords: string): void {
  const hasRoom = lingering < MAX_LINGERING;
  const timer = setTimeout(() => socket.destroy(), LINGER);
  lingering++;
  socket.once('close', () => {
    clearTimeout(timer);
    lingering--;
  });
  socket.once('end', () => finished(socket));
  socket.end(lastWords, () => {
    if (!hasRoom) socket.destroy();
    else if (socket.readableEnded) finished(socket);
  });
  socket.resume();
}

/** Both sides have said all. */
function finished(socket: Duplex): void {
  if (socket.writableFinished) socket.destroy();
}
