/**
 * derplane as the relay of a bench run: embeds `Server`, says where it listens, and answers which shard owns a key (the hash is
 * seeded per process, so nobody else knows) and how many wake-ups were lost. Started by peers.ts with `RelayArguments` as JSON. A mesh is two relays of a region, the
 * second one at `/derp?relay=2` of the same port.
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createPageServer, PrivateKey, PublicKey, Server, TlsContext } from 'derplane';
import { readCertificate } from './certificate.js';

export interface RelayArguments {
  shards: number;
  mesh: boolean;
  /** Folder of the certificate; plain without. */
  certificateFolder?: string;
}

/** First message. */
export interface RelayReady {
  port: number;
  publicKey: Uint8Array;
  second?: { publicKey: Uint8Array; path: string };
}

/** Which shards own these keys; or how many wake-ups between shards were lost so far. */
export type RelayQuestion = { shardOf: Uint8Array[] } | { lostWakes: true };

export interface RelayAnswer {
  shards: number[];
}

export interface RelayWakes {
  lostWakes: number;
}

const { shards, mesh, certificateFolder } = JSON.parse(process.argv[2]!) as RelayArguments;
const server = new Server(PrivateKey.generate(), { shards, ...(mesh && { mesh: { key: '5e'.repeat(32) } }) });
const second = mesh ? new Server(PrivateKey.generate(), { shards, mesh: { key: server.meshKey } }) : undefined;
await Promise.all([server.ready(), second?.ready()]);
const ready = second === undefined ? await listenAlone() : await listenTogether(second);

async function listenAlone(): Promise<RelayReady> {
  const tls = certificateFolder === undefined ? {} : { tls: contextOf(certificateFolder) };
  const { port } = await server.listen({ host: '127.0.0.1', port: 0, httpServer: createPageServer(), ...tls });
  return { port, publicKey: server.publicKey.bytes };
}

function contextOf(folder: string): TlsContext {
  const context = new TlsContext();
  context.set('*', [readCertificate(folder)]);
  return context;
}

/** The load knows one port: the path chooses the relay. Links have ports of their own. */
async function listenTogether(other: Server): Promise<RelayReady> {
  for (const [from, to] of [
    [server, other],
    [other, server],
  ] as const) {
    const { port } = await to.listen({ host: '127.0.0.1', port: 0 });
    from.addMeshPeer(`http://127.0.0.1:${port}`);
  }
  const http = createPageServer();
  http.on('upgrade', ({ url }, socket, head) => void (url?.includes('relay=2') ? other : server).accept(socket, head));
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const { port } = http.address() as AddressInfo;
  const path = '/derp?relay=2';
  return { port, publicKey: server.publicKey.bytes, second: { publicKey: other.publicKey.bytes, path } };
}

process.on('message', (question: RelayQuestion) => {
  if ('lostWakes' in question) {
    const lost = [server, second].map((relay) => Number(relay?.expVar()['lost_wakes'] ?? 0));
    process.send?.({ lostWakes: lost.reduce((sum, count) => sum + count, 0) } satisfies RelayWakes);
    return;
  }
  const homes = question.shardOf.map((key) => server.shardOf(PublicKey.fromBytes(key)));
  process.send?.({ shards: homes } satisfies RelayAnswer);
});
const end = async () => {
  await Promise.all([server.close(), second?.close()]);
  process.exit(0);
};
process.on('SIGTERM', end);
process.on('disconnect', end);
process.send?.(ready);
