/** `derplane demo`: two clients exchange packets through a running relay and print the results. */
import { RelayClient } from '../client/relay_client.js';
import { DerpError } from '../errors.js';
import { PrivateKey, type PublicKey } from '../protocol/key.js';
import { StartError } from './exit.js';
import type { FlagTable } from './flag_set.js';
import { printOut } from './output.js';

export const DEMO_FLAGS = {
  url: { type: 'string', default: 'http://127.0.0.1:3340/derp', help: '`URL` of the relay' },
  'cert-name': {
    type: 'string',
    default: '',
    help: '`name` or IP address that the certificate of an https relay must cover, or its pin, "sha256-raw:" and 64 hexadecimal digits: the CertName of a DERP map; if not given, the host of -url',
  },
  count: { type: 'int', default: 10, min: 1, max: 1_000_000, help: 'packets to send' },
} as const satisfies FlagTable;

/** Milliseconds to wait for an answer. */
const ANSWER_LIMIT = 5_000;

export interface DemoOptions {
  url: string;
  count: number;
  'cert-name': string;
}

/**
 * Sends `count` packets from one new client to another, which answers each, and prints every round trip.
 *
 * @throws {@link StartError} when no relay answers at `url`, or an answer does not come
 */
export async function demo({ url, count, 'cert-name': certName }: DemoOptions): Promise<number> {
  const keys = { a: PrivateKey.generate(), b: PrivateKey.generate() };
  const a = new RelayClient(keys.a, url, { certName });
  const b = new RelayClient(keys.b, url, { certName });
  try {
    await Promise.all([a.connect(), b.connect()]).catch((error: unknown) => {
      throw unreachable(url, error);
    });
    printOut(`relay ${url}, client a ${keys.a.publicKey.shortString()}, client b ${keys.b.publicKey.shortString()}\n`);
    const answering = answerAll(b);
    const times: number[] = [];
    for (let number = 1; number <= count; number++) {
      times.push(await Promise.race([roundTrip(a, keys.b.publicKey, number), answering]));
    }
    times.sort((one, other) => one - other);
    const average = times.reduce((sum, time) => sum + time, 0) / times.length;
    const [min, avg, max] = [times[0]!, average, times.at(-1)!].map((time) => time.toFixed(3));
    printOut(`${count} packets there and back, round trip min/avg/max ${min}/${avg}/${max} ms\n`);
    return 0;
  } finally {
    a.close();
    b.close();
  }
}

/** Client b: answers every packet until the client is closed. Rejects when the connection to the relay ends. */
async function answerAll(client: RelayClient): Promise<never> {
  for (;;) {
    const message = await client.recv();
    if (message.type === 'packet')
      await client.send(message.source, Buffer.from(`${Buffer.from(message.data)}, received`));
  }
}

/** Sends one packet, waits for its answer and prints both. Returns the milliseconds between them. */
async function roundTrip(client: RelayClient, peer: PublicKey, number: number): Promise<number> {
  const text = `hello ${number}`;
  const start = performance.now();
  await client.send(peer, Buffer.from(text));
  const answer = await within(ANSWER_LIMIT, packetFrom(client, peer), `packet ${number}`);
  const time = performance.now() - start;
  printOut(`packet ${number}: a -> b "${text}", b -> a "${answer}", round trip ${time.toFixed(3)} ms\n`);
  return time;
}

async function packetFrom(client: RelayClient, peer: PublicKey): Promise<string> {
  for (;;) {
    const message = await client.recv();
    if (message.type === 'packet' && message.source.equals(peer)) return Buffer.from(message.data).toString();
  }
}

async function within<T>(milliseconds: number, promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new StartError(`${what}: no answer within ${milliseconds / 1000} s`)),
      milliseconds,
    );
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}

function unreachable(url: string, error: unknown): Error {
  const { code, message: told } = error as DerpError;
  if (code === 'ERR_DERP_BAD_OPTION') return error as DerpError;
  if (code === 'ERR_DERP_TLS' || code === 'ERR_DERP_CERTIFICATE') {
    const hint =
      'if the relay has a self-signed certificate, give -cert-name the CertName of the DERP map that the relay printed';
    return new StartError(`${url} answers, but TLS fails: ${told}; ${hint}`, { cause: error });
  }
  const { message } = error instanceof DerpError && error.cause instanceof Error ? error.cause : (error as Error);
  const hint = 'start one with: derplane -dev (in the repository: npm start)';
  return new StartError(`no relay answers at ${url}: ${message}; ${hint}`, { cause: error });
}
