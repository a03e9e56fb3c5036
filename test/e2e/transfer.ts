/** Bytes from one node to another through the tailnet. */
import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import type { Program } from './program.js';
import type { TailscaleNode } from './tailnet.js';

const MIB = 2 ** 20;
const receiverPath = fileURLToPath(new URL('guests/receiver.js', import.meta.url));

/** A transfer on its way. */
export class Transfer {
  readonly #receiver: Program;
  readonly #sender: Program;
  readonly #sent: Promise<string>;

  private constructor(receiver: Program, sender: Program, mebibytes: number) {
    this.#receiver = receiver;
    this.#sender = sender;
    this.#sent = send(sender, mebibytes);
    // Who asks for the digests hears of it.
    this.#sent.catch(() => undefined);
  }

  /** Starts to send random bytes, through `tailscale nc`. */
  static async start(from: TailscaleNode, to: TailscaleNode, mebibytes: number): Promise<Transfer> {
    // A node in user space hands connections to its tailnet address to the same port of 127.0.0.1.
    const receiver = to.run(process.execPath, [receiverPath]);
    const port = (await receiver.line(/^port /)).slice('port '.length);
    const sender = from.command('nc', await to.address(), port);
    return new Transfer(receiver, sender, mebibytes);
  }

  /** Resolves once so much has arrived. */
  async received(mebibytes: number): Promise<void> {
    await this.#receiver.line(new RegExp(`^received ${mebibytes}$`));
  }

  /** Mebibytes that have arrived. */
  progress(): number {
    return Number(
      this.#receiver
        .output()
        .trim()
        .split('\n')
        .at(-1)!
        .match(/^received (\d+)$/)?.[1] ?? 0,
    );
  }

  /** Resolves, once all has arrived, with SHA-256 of what was sent and of what arrived. */
  async digests(): Promise<{ sent: string; arrived: string }> {
    const [sent, arrived] = await Promise.all([this.#sent, this.#sender.line(/^[0-9a-f]{64}$/)]);
    return { sent, arrived };
  }
}

/** Sends the length and so many bytes; resolves with their SHA-256. */
async function send(sender: Program, mebibytes: number): Promise<string> {
  const hash = createHash('sha256');
  const head = Buffer.alloc(8);
  head.writeBigUInt64BE(BigInt(mebibytes * MIB));
  function* chunks() {
    yield head;
    for (let sent = 0; sent < mebibytes; sent++) {
      const chunk = randomBytes(MIB);
      hash.update(chunk);
      yield chunk;
    }
  }
  // `tailscale nc` ends when its input does, so that stays open until the answer came.
  await pipeline(Readable.from(chunks()), sender.stdin, { end: false });
  return hash.digest('hex');
}
