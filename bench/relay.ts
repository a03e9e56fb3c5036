/**
 * derplane as the relay of a bench run: embeds `Server`, says where it listens, and answers which shard owns a key (the hash is
 * seeded per process, so nobody else knows). Started by peers.ts with the number of shards.
 */
import { createPageServer, PrivateKey, PublicKey, Server } from 'derplane';

/** First message. */
export interface RelayReady {
  port: number;
  publicKey: Uint8Array;
}

export interface RelayQuestion {
  shardOf: Uint8Array[];
}

export interface RelayAnswer {
  shards: number[];
}

const server = new Server(PrivateKey.generate(), { shards: Number(process.argv[2]) });
await server.ready();
const listener = await server.listen({ host: '127.0.0.1', port: 0, httpServer: createPageServer() });

process.on('message', ({ shardOf }: RelayQuestion) => {
  const shards = shardOf.map((key) => server.shardOf(PublicKey.fromBytes(key)));
  process.send?.({ shards } satisfies RelayAnswer);
});
const end = async () => {
  await server.close();
  process.exit(0);
};
process.on('SIGTERM', end);
process.on('disconnect', end);
process.send?.({ port: listener.port, publicKey: server.publicKey.bytes } satisfies RelayReady);
