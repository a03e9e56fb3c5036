/** Labels and limits that admission gives a client, on the wire and in figures. */
import { type AdmitDecision, PrivateKey, Server } from 'derplane';
import { describe, expect, test } from 'vitest';
import { samples, withMetrics } from './support/debug_server.js';
import { LogWatch } from './support/log_watch.js';
import { clientInfoBody, Frame, frame, RawClient, upgradeHead } from './support/raw_client.js';
import { withRelay } from './support/relay.js';

const RESTARTING = 0x15;
const MESH_KEY = 'ab'.repeat(32);

describe.each([1, 2])('labels of a relay with %d shards', (shards) => {
  test('are metrics: clients, packets and bytes of each', async () => {
    const labels = new Map<string, string>();
    const admit = ({ key }: { key: { hex: string } }): AdmitDecision => {
      const label = labels.get(key.hex);
      return label === undefined ? true : { allow: true, label };
    };
    await withRelay({ shards, admission: { admit } }, (relay) =>
      withMetrics({ relay: relay.server }, async (port) => {
        expect([...(await samples(port)).keys()].filter((name) => name.includes('label'))).toEqual([]);
        const [keyOfA, keyOfB] = [PrivateKey.generate(), PrivateKey.generate()];
        labels.set(keyOfA.publicKey.hex, 'red').set(keyOfB.publicKey.hex, 'blue');
        const a = await relay.connect({ key: keyOfA });
        const b = await relay.connect({ key: keyOfB });
        const plain = await relay.connect();
        await a.send(b.publicKey, Buffer.alloc(100));
        await plain.send(b.publicKey, Buffer.alloc(10));
        await b.expectPacket();
        await b.expectPacket();
        await a.send(PrivateKey.generate().publicKey, Buffer.alloc(7));
        await a.settle();
        await expect
          .poll(async () => (await samples(port)).get('derplane_label_packets_dropped_total{label="red"}'))
          .toBe(1);
        await b.settle();
        const all = await samples(port);
        const figure = (name: string, label: string) => all.get(`derplane_label_${name}{label="${label}"}`);
        expect(figure('clients', 'red')).toBe(1);
        expect(figure('packets_received_total', 'red')).toBe(2);
        expect(figure('bytes_received_total', 'red')).toBe(107);
        expect(figure('bytes_dropped_total', 'red')).toBe(7);
        expect(figure('packets_sent_total', 'blue')).toBe(2);
        expect(figure('bytes_sent_total', 'blue')).toBe(110);
        expect(figure('packets_received_total', 'blue')).toBe(0);
        expect(all.get('derplane_label_overflow_total')).toBe(0);
      }),
    );
  });
});

test('labels beyond the 63rd are counted as "other", which the log says once', async () => {
  const logger = new LogWatch();
  let clients = 0;
  const admit = (): AdmitDecision => ({ allow: true, label: `label${++clients}` });
  await withRelay({ shards: 1, logger, admission: { admit } }, (relay) =>
    withMetrics({ relay: relay.server }, async (port) => {
      for (let n = 0; n < 66; n++) await relay.connect();
      await logger.line(
        /^WARN derper: more than 63 labels of clients; label "label64" and further ones are counted as "other"$/,
      );
      const all = await samples(port);
      expect(all.get('derplane_label_clients{label="label63"}')).toBe(1);
      expect(all.get('derplane_label_clients{label="other"}')).toBe(3);
      expect(all.get('derplane_label_overflow_total')).toBe(3);
      expect([...all.keys()].filter((name) => name.startsWith('derplane_label_clients'))).toHaveLength(64);
    }),
  );
});

test('a client with a limit of its own is told by a Health frame that it is slowed down; a mesh peer has none', async () => {
  const admit = (): AdmitDecision => ({ allow: true, receiveRate: 1_000 });
  await withRelay({ shards: 1, admission: { admit }, mesh: { key: MESH_KEY } }, async (relay) => {
    const sender = await relay.connect();
    const mesh = await relay.connect({ meshKey: MESH_KEY });
    for (const client of [sender, mesh]) {
      for (let n = 0; n < 2; n++) await client.send(client.publicKey, Buffer.alloc(50_000));
    }
    await mesh.expectPacket();
    await mesh.expectPacket();
    await mesh.settle();
    await sender.expectPacket();
    expect((await sender.expectFrame(Frame.health)).toString()).toBe(
      'This relay slows your traffic down: you send more than its limit of 1000 bytes per second.',
    );
    expect(relay.counter('rate_limit_per_client_waited')).toBe(1);
  });
});

test('a client that is let in while the relay drains is told so, too', async () => {
  let asked!: () => void;
  const isAsked = new Promise<void>((resolve) => {
    asked = resolve;
  });
  let letIn!: (decision: boolean) => void;
  const decision = new Promise<boolean>((resolve) => {
    letIn = resolve;
  });
  let clients = 0;
  const admit = () => {
    if (++clients === 1) return true;
    asked();
    return decision;
  };
  const server = new Server(PrivateKey.generate(), { shards: 1, handshake: { threads: 1 }, admission: { admit } });
  try {
    const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
    const first = await (await RawClient.dial(port)).open();
    const late = await RawClient.dial(port);
    await late.write(upgradeHead());
    await late.readHead();
    const serverKey = await late.readServerKey();
    await late.write(frame(Frame.clientInfo, clientInfoBody(late.key, { serverKey })));
    await isAsked;
    const closing = server.close({ drainTime: 60_000 });
    await first.expectFrame(RESTARTING);
    letIn(true);
    await late.readServerInfo();
    expect(await late.expectFrame(RESTARTING)).toHaveLength(8);
    await server.close();
    await closing;
  } finally {
    await server.close();
  }
});
