/** A handshake thread's side of admission: asks the main thread, and waits without holding up other handshakes. */
import type { MessagePort } from 'node:worker_threads';
import type { Admission } from '../admission/decision.js';
import type { FromDesk, Question, ToDesk } from '../admission/messages.js';

export class AdmissionAsker {
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, (admission: Admission) => void>();
  #tickets = 0;

  constructor(port: MessagePort) {
    this.#port = port;
    port.on('message', (message: FromDesk) => this.#take(message));
    port.unref();
  }

  /**
   * The decision about a client.
   * @param gone - rejects when its handshake ends before; so does this then
   */
  async ask(question: Question, gone: Promise<never>): Promise<Admission> {
    const ticket = ++this.#tickets;
    const answer = new Promise<Admission>((resolve) => {
      this.#waiting.set(ticket, resolve);
    });
    this.#send({ type: 'ask', ticket, question });
    try {
      return await Promise.race([answer, gone]);
    } catch (error) {
      this.#send({ type: 'gone', ticket });
      throw error;
    } finally {
      this.#waiting.delete(ticket);
    }
  }

  #take(message: FromDesk): void {
    if (message.type === 'answer') this.#waiting.get(message.ticket)?.(message.admission);
    // Those answered before go on in microtasks, which run before the next immediate.
    else setImmediate(() => this.#send({ type: 'flushed', flush: message.flush }));
  }

  #send(message: ToDesk): void {
    this.#port.postMessage(message);
  }
}
