import { PrivateKey, RelayClient } from 'derplane';
import { expect } from 'vitest';

/** Expects that a packet from one new client reaches another through the relay at `url`. */
export async function expectRelay(url: string): Promise<void> {
  const [a, b] = [new RelayClient(PrivateKey.generate(), url), new RelayClient(PrivateKey.generate(), url)];
  try {
    await Promise.all([a.connect(), b.connect()]);
    await a.send(b.publicKey, Buffer.from('over the relay'));
    let message = await b.recv();
    while (message.type !== 'packet') message = await b.recv();
    expect({ source: message.source.hex, text: message.data.toString() }).toEqual({
      source: a.publicKey.hex,
      text: 'over the relay',
    });
  } finally {
    a.close();
    b.close();
  }
}
