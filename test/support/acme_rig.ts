/** What surrounds a source of ACME certificates: a folder, a sink that answers TLS, a plain port for challenges, a log. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AcmeCertificates, type AcmeOptions, acmeCertificates } from '../../dist/certificates/acme.js';
import { LogWatch } from './log_watch.js';
import { TlsSink } from './tls_sink.js';

export const HOST = 'derp.example.com';

export class AcmeRig {
  readonly folder: string;
  readonly sink: TlsSink;
  readonly log = new LogWatch();
  /** Paths that the plain port was asked for. */
  readonly requests: string[] = [];
  readonly #plain: Server;
  readonly #sources: AcmeCertificates[] = [];

  private constructor(folder: string, sink: TlsSink) {
    this.folder = folder;
    this.sink = sink;
    this.#plain = createServer((request, response) => {
      this.requests.push(request.url ?? '');
      if (this.#sources.some((source) => source.challenge(request, response))) return;
      response.writeHead(302, { Location: 'https://elsewhere.example/' }).end();
    });
  }

  static async make(): Promise<AcmeRig> {
    const rig = new AcmeRig(await mkdtemp(join(tmpdir(), 'derplane-acme-')), await TlsSink.listen());
    rig.#plain.listen(0, '127.0.0.1');
    await once(rig.#plain, 'listening');
    return rig;
  }

  get httpPort(): number {
    return (this.#plain.address() as AddressInfo).port;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** A source for `HOST` with what `options` say otherwise, not started yet. */
  async source(options: Partial<AcmeOptions>): Promise<AcmeCertificates> {
    const source = await acmeCertificates({
      sink: this.sink,
      hostname: HOST,
      certDir: this.folder,
      mode: 'letsencrypt',
      ipCertificates: false,
      logger: this.log,
      ...options,
    });
    this.#sources.push(source);
    this.sink.onWanted = (name) => source.wanted(name);
    return source;
  }

  async close(): Promise<void> {
    await Promise.all(this.#sources.map((source) => source.close()));
    this.#plain.close();
    this.#plain.closeAllConnections();
    await this.sink.close();
    await rm(this.folder, { recursive: true, force: true });
  }
}
