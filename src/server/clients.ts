/** Who is connected: each shard answers with its first records, and they are merged here. */
import { DerpError } from '../errors.js';
import type { NativeClientQuery, NativeRelay, RelayEvent } from '../native.js';
import { type ClientList, type ClientQuery, cursorOf, nativeQuery } from './client_query.js';
import { CLIENT_SORTS, clientAt, compareRecords, type ListedClient, RECORD_LENGTH } from './client_records.js';

/** Queries that may wait; further ones are refused. Each query makes the shards visit every client. */
export const MAX_WAITING_QUESTIONS = 16;

type Answer = Extract<RelayEvent, { type: 'clients' }>;

interface Question {
  query: NativeClientQuery;
  ticket: number;
  /** Shards that have not answered. */
  left: number;
  answers: Answer[];
  resolve: (list: ClientList) => void;
  reject: (error: DerpError) => void;
}

export class Clients {
  readonly #relay: NativeRelay;
  readonly #shards: number;
  /** The first is being answered: one at a time, so that memory and the shards' time have a bound. */
  readonly #questions: Question[] = [];
  #nextTicket = 1;

  constructor(relay: NativeRelay, shards: number) {
    this.#relay = relay;
    this.#shards = shards;
  }

  /** @throws DerpError `ERR_DERP_BAD_OPTION`; `ERR_DERP_BUSY` when too many questions wait; `ERR_DERP_CLOSED` */
  ask(wanted: ClientQuery): Promise<ClientList> {
    const query = nativeQuery(wanted);
    if (this.#questions.length > MAX_WAITING_QUESTIONS) {
      throw new DerpError(
        'ERR_DERP_BUSY',
        `${MAX_WAITING_QUESTIONS} questions for clients wait already; ask again later`,
      );
    }
    return new Promise((resolve, reject) => {
      const left = query.key === undefined ? this.#shards : 1;
      this.#questions.push({ query, ticket: this.#nextTicket++, left, answers: [], resolve, reject });
      if (this.#questions.length === 1) this.#begin();
    });
  }

  /** Takes a shard's answer. */
  take(answer: Answer): void {
    const current = this.#questions[0];
    if (current?.ticket !== answer.ticket) return;
    current.answers.push(answer);
    if (--current.left > 0) return;
    this.#questions.shift();
    this.#begin();
    current.resolve(listOf(current.query, current.answers));
  }

  /** No shard answers any more. */
  close(): void {
    for (const { reject } of this.#questions.splice(0)) reject(closed());
  }

  #begin(): void {
    const next = this.#questions[0];
    if (next === undefined) return;
    try {
      this.#relay.clients(next.ticket, next.query);
    } catch {
      this.close(); // a shard has ended, and the relay is about to
    }
  }
}

function closed(): DerpError {
  return new DerpError('ERR_DERP_CLOSED', 'the relay is closed');
}

function listOf({ sort: sortIndex, descending, limit }: NativeClientQuery, answers: Answer[]): ClientList {
  const sort = CLIENT_SORTS[sortIndex]!;
  const total = (member: 'connections' | 'keys' | 'behind') => answers.reduce((sum, answer) => sum + answer[member], 0);
  const clients = firstOf(
    answers.map(({ records }) => records),
    limit,
    (a, b) => compareRecords(a, b, sort, descending),
  );
  const remaining = total('behind') - clients.length;
  const last = clients.at(-1);
  const next = remaining > 0 && last !== undefined ? cursorOf(last, sort) : undefined;
  return { connections: total('connections'), keys: total('keys'), remaining, clients, next };
}

/** The first clients of lists that are in order, which is cheap: each step compares what the lists begin with. */
function firstOf(lists: Buffer[], limit: number, compare: (a: Buffer, b: Buffer) => number): ListedClient[] {
  const rests = lists.filter((records) => records.length > 0);
  const clients: ListedClient[] = [];
  while (clients.length < limit && rests.length > 0) {
    let first = 0;
    for (let i = 1; i < rests.length; i++) if (compare(rests[i]!, rests[first]!) < 0) first = i;
    clients.push(clientAt(rests[first]!, 0));
    rests[first] = rests[first]!.subarray(RECORD_LENGTH);
    if (rests[first]!.length === 0) rests.splice(first, 1);
  }
  return clients;
}
