/** The main thread's side of admission: answers the questions of handshake threads, as many at once as there are handshakes. */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { PublicKey } from '../protocol/key.js';
import type { Admission, AdmissionRequest } from './decision.js';
import type { FromDesk, Question, ToDesk } from './messages.js';

/** Never rejects. */
type Decide = (request: AdmissionRequest, signal: AbortSignal) => Promise<Admission>;

/** A thread that asks. */
interface Asker {
  readonly port: MessagePort;
  /** What is aborted when the client of a question is gone, by ticket. */
  readonly open: Map<number, AbortController>;
  /** Flushes that the thread has not confirmed. */
  readonly flushes: Map<number, () => void>;
}

export class AdmissionDesk {
  readonly #decide: Decide;
  readonly #askers = new Set<Asker>();
  #flush = 0;

  constructor(decide: Decide) {
    this.#decide = decide;
  }

  /** Clients that wait for a decision now. */
  get waiting(): number {
    return [...this.#askers].reduce((sum, { open }) => sum + open.size, 0);
  }

  /** A port for one handshake thread. */
  connect(): MessagePort {
    const { port1, port2 } = new MessageChannel();
    const asker: Asker = { port: port1, open: new Map(), flushes: new Map() };
    this.#askers.add(asker);
    port1.on('message', (message: ToDesk) => this.#take(asker, message));
    // The thread has ended, and no one waits for the answer.
    port1.on('close', () => {
      this.#askers.delete(asker);
      for (const client of asker.open.values()) client.abort();
      for (const done of asker.flushes.values()) done();
    });
    port1.unref();
    return port2;
  }

  /** Resolves when every thread has handed the clients that were let in until now to their shards. */
  async flushed(): Promise<void> {
    const flush = ++this.#flush;
    await Promise.all(
      [...this.#askers].map(
        (asker) =>
          new Promise<void>((resolve) => {
            asker.flushes.set(flush, resolve);
            send(asker, { type: 'flush', flush });
          }),
      ),
    );
  }

  close(): void {
    for (const { port } of this.#askers) port.close();
  }

  #take(asker: Asker, message: ToDesk): void {
    switch (message.type) {
      case 'ask':
        void this.#answer(asker, message.ticket, message.question);
        break;
      case 'gone':
        asker.open.get(message.ticket)?.abort();
        asker.open.delete(message.ticket);
        break;
      case 'flushed':
        asker.flushes.get(message.flush)?.();
        asker.flushes.delete(message.flush);
        break;
    }
  }

  async #answer(asker: Asker, ticket: number, { key, ...rest }: Question): Promise<void> {
    const client = new AbortController();
    asker.open.set(ticket, client);
    const admission = await this.#decide({ ...rest, key: PublicKey.fromBytes(key) }, client.signal);
    if (asker.open.delete(ticket)) send(asker, { type: 'answer', ticket, admission });
  }
}

function send({ port }: Asker, message: FromDesk): void {
  port.postMessage(message);
}
