import type { ReceivedMessage, ReceivedPacket } from './messages.js';

/**
 * Messages one after another, for asynchronous iteration.
 * @param isEnd - whether a failure of `recv` is the orderly end; every other one is thrown
 */
export async function* messagesUntil(
  recv: () => Promise<ReceivedMessage>,
  isEnd: (error: unknown) => boolean,
): AsyncGenerator<ReceivedMessage, void, undefined> {
  for (;;) {
    let message: ReceivedMessage;
    try {
      message = await recv();
    } catch (error) {
      if (isEnd(error)) return;
      throw error;
    }
    yield message;
  }
}

/** As {@link messagesUntil}, of packets alone. */
export async function* packetsUntil(
  recv: () => Promise<ReceivedMessage>,
  isEnd: (error: unknown) => boolean,
): AsyncGenerator<ReceivedPacket, void, undefined> {
  for await (const message of messagesUntil(recv, isEnd)) {
    if (message.type === 'packet') yield message;
  }
}
