/** Admission of clients that come over WebSocket: the same questions, answers and ends as over TCP. */
import { once } from 'node:events';
import type { AdmissionRequest, AdmitDecision } from 'derplane';
import { describe, expect, it } from 'vitest';
import { clientInfoBody, Frame, frame, type RawClient, sendPacketFrame } from './support/raw_client.js';
import { patterned, withRelay } from './support/relay.js';
import { closeOf, dialWebSocket } from './support/web_socket.js';

const MESH_KEY = 'c3'.repeat(32);

async function sendClientInfo(client: RawClient, info: object = {}): Promise<void> {
  const serverKey = await client.readServerKey();
  const json = JSON.stringify({ version: 2, ...info });
  client.push(frame(Frame.clientInfo, clientInfoBody(client.key, { serverKey, json })));
}

describe.each([false, true])('a WebSocket client, TLS: %s', (tls) => {
  it('is asked about by its key and address; with a no it is closed with 1000', () => {
    const heard: AdmissionRequest[] = [];
    const admit = (request: AdmissionRequest) => {
      heard.push(request);
      return request.appName === 'good';
    };
    return withRelay({ shards: 2, tls, admission: { admit } }, async (relay) => {
      const good = await dialWebSocket(relay);
      await sendClientInfo(good.client, { AppName: 'good' });
      await good.client.readServerInfo();
      expect(heard[0]!.key.equals(good.client.publicKey)).toBe(true);
      expect(heard[0]!.address).toMatch(/^127\.0\.0\.1:\d+$/);
      const { webSocket, client } = await dialWebSocket(relay);
      const closed = closeOf(webSocket);
      await sendClientInfo(client);
      expect((await closed).code).toBe(1000);
      expect(relay.counter('admission_refused', 'hook')).toBe(1);
      await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
    });
  });

  it('that leaves while it waits ends its question', () => {
    const signals: AbortSignal[] = [];
    const admit = (_: AdmissionRequest, signal: AbortSignal) => {
      signals.push(signal);
      return new Promise<boolean>(() => {});
    };
    return withRelay({ shards: 1, tls, admission: { admit, admitTimeout: 60_000 } }, async (relay) => {
      const { webSocket, client } = await dialWebSocket(relay);
      await sendClientInfo(client);
      await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 1);
      const aborted = once(signals[0]!, 'abort');
      webSocket.terminate();
      await aborted;
      await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 0);
      await relay.untilCounter(['gauge_handshakes_in_progress'], (value) => value === 0);
      expect(relay.counter('admission_refused', 'hook')).toBe(0);
    });
  });

  it('that sends packets while it waits loses none, and gets its label and limit', () => {
    let decide: (decision: AdmitDecision) => void = () => {};
    const admit = ({ appName }: AdmissionRequest) =>
      appName === 'peer' || new Promise<AdmitDecision>((resolve) => (decide = resolve));
    return withRelay({ shards: 2, tls, admission: { admit } }, async (relay) => {
      const { client: peer } = await dialWebSocket(relay);
      await sendClientInfo(peer, { AppName: 'peer' });
      await peer.readServerInfo();
      const { client } = await dialWebSocket(relay);
      await sendClientInfo(client);
      await relay.untilCounter(['gauge_admission_waiting'], (value) => value === 1);
      for (let n = 0; n < 4; n++) client.push(sendPacketFrame(peer.publicKey, patterned(60_000)));
      decide({ allow: true, label: 'tests', receiveRate: 100_000 });
      await client.readServerInfo();
      for (let n = 0; n < 4; n++) expect((await peer.expectPacket()).packet).toEqual(patterned(60_000));
      expect(relay.counter('rate_limit_per_client_waited')).toBeGreaterThan(0);
      await client.expectFrame(Frame.health);
    });
  });

  it('that is a mesh peer is not asked about', () =>
    withRelay({ shards: 1, tls, mesh: { key: MESH_KEY }, admission: { admit: () => false } }, async (relay) => {
      const { client } = await dialWebSocket(relay);
      await sendClientInfo(client, { meshKey: MESH_KEY });
      await client.readServerInfo();
      expect(relay.counter('admission_refused', 'hook')).toBe(0);
      const wrong = await dialWebSocket(relay);
      const closed = closeOf(wrong.webSocket);
      await sendClientInfo(wrong.client, { meshKey: 'd4'.repeat(32) });
      expect((await closed).code).toBe(1000);
      expect(relay.counter('admission_refused', 'hook')).toBe(1);
    }));
});
