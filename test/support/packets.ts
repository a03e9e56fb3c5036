/** Packets from one client to another, over however many relays. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RelayClient } from 'derplane';

/** What both clients can. */
export type Party = Pick<RelayClient, 'publicKey' | 'send' | 'recv'>;

/** Packets of a stream that may be on their way: below a client's queue, so that none may be lost. */
const WINDOW = 16;

export async function nextPacket(client: Party, from?: Party): Promise<{ source: string; data: Buffer }> {
  for (;;) {
    const message = await client.recv();
    if (message.type !== 'packet') continue;
    if (from !== undefined && !message.source.equals(from.publicKey)) continue;
    return { source: message.source.hex, data: message.data };
  }
}

/** Sends until a packet has arrived, and then until no other of these is on its way. */
export async function untilReached(from: Party, to: Party): Promise<void> {
  let reached = false;
  const reaching = nextPacket(to, from).finally(() => {
    reached = true;
  });
  while (!reached) {
    await from.send(to.publicKey, Buffer.from('probe'));
    await Promise.race([reaching, sleep(10)]); // until then it may be dropped, and nothing tells
  }
  await reaching;
  const last = Buffer.from(`last ${Math.random()}`);
  await from.send(to.publicKey, last);
  while (!(await nextPacket(to, from)).data.equals(last));
}

/** Packet `n` of a stream, of a length that varies with it. */
function numbered(n: number): Buffer {
  const packet = Buffer.alloc(8 + ((n * 131) % 1400), n);
  packet.writeUInt32BE(n);
  return packet;
}

/** Sends `count` packets and expects them whole, once and in order. */
export async function stream(from: Party, to: Party, count: number): Promise<void> {
  let received = 0;
  let wake = () => {};
  const receiving = (async () => {
    for (let n = 0; n < count; n++) {
      const { data } = await nextPacket(to, from);
      if (!data.equals(numbered(n))) throw new Error(`packet ${data.readUInt32BE(0)} of ${data.length} bytes for ${n}`);
      received = n + 1;
      wake();
    }
  })();
  const sending = (async () => {
    for (let n = 0; n < count; n++) {
      while (n - received >= WINDOW) await Promise.race([receiving, new Promise<void>((resolve) => (wake = resolve))]);
      await from.send(to.publicKey, numbered(n));
    }
  })();
  await Promise.all([receiving, sending]);
}
