/** OpenSSL's own client, `openssl s_client`, as a peer of the relay. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { Duplex } from 'node:stream';
import { RawClient } from './raw_client.js';

/** Why there is none, or `undefined`. With `CI=true` a missing one is an error. */
export const opensslMissing: string | undefined = whyMissing();

export class SClient {
  /** Writes that begin with one of the letters R, K, k and Q are commands; without it all writes are data. */
  static readonly COMMANDS = '-no_ign_eof';
  readonly client: RawClient;
  readonly #child: ChildProcess;
  #stderr = '';
  #wake: () => void = () => undefined;

  /**
   * @param flags - besides the address; the certificate is not verified. With {@link SClient.COMMANDS} what is written may be a command
   */
  private constructor(port: number, ...flags: string[]) {
    this.#child = spawn('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, '-quiet', ...flags]);
    this.#child.setMaxListeners(0);
    this.#child.stderr?.on('data', (chunk) => {
      this.#stderr += chunk;
      this.#wake();
    });
    this.#child.on('exit', () => this.#wake());
    const { stdin, stdout } = this.#child as { stdin: NodeJS.WritableStream; stdout: NodeJS.ReadableStream };
    this.client = new RawClient(Duplex.from({ writable: stdin, readable: stdout }));
  }

  /** Runs `body` with a client that lives as long; parameters as above. */
  static async with(port: number, flags: readonly string[], body: (peer: SClient) => Promise<unknown>): Promise<void> {
    const peer = new SClient(port, ...flags);
    try {
      await body(peer);
    } finally {
      await peer.#kill();
    }
  }

  /** What it said besides the relay's bytes. */
  get stderr(): string {
    return this.#stderr;
  }

  /** Gives a command; resolves when `answer` came once more on stderr, or the program ended. */
  async command(letter: string, answer: string): Promise<void> {
    const times = () => this.#stderr.split(answer).length;
    const before = times();
    this.client.push(Buffer.from(letter));
    while (times() === before && this.#child.exitCode === null) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Resolves with the exit code. */
  async ended(): Promise<number | null> {
    if (this.#child.exitCode === null) await once(this.#child, 'close');
    return this.#child.exitCode;
  }

  async #kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'close');
  }
}

function whyMissing(): string | undefined {
  const { status, error, stderr } = spawnSync('openssl', ['version'], { encoding: 'utf8' });
  if (status === 0) return undefined;
  const reason = `no openssl to connect with: ${error?.message ?? stderr}`;
  if (process.env['CI'] === 'true') throw new Error(reason);
  console.warn(`skipped: ${reason}`);
  return reason;
}
