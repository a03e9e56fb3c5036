import { type Client, PrivateKey, type PublicKey } from 'derplane';
import { beginClient } from '../../dist/client/client.js';
import { trustOf } from '../../dist/client/dial_tls.js';
import { openConnection } from '../../dist/client/open_connection.js';
import { clientInfoOf } from '../../dist/client/options.js';
import { Box } from '../../dist/protocol/box.js';
import { sealClientInfo } from '../../dist/protocol/info.js';

/** Connects over TLS as `RelayClient` does, but to a name that no DNS knows, at `address`; the relay must tell its key by its meta certificate. */
export async function connectNamed(url: URL, address: string, ca: string): Promise<Client> {
  const key = PrivateKey.generate();
  const clientInfo = (relay: PublicKey) => sealClientInfo(clientInfoOf({}), key.publicKey, new Box(relay, key));
  const dialling = { url, dialHost: address, timeout: 10_000, signal: new AbortController().signal, clientInfo };
  const client = await openConnection(
    { ...dialling, fastStart: false, idealNode: undefined, trust: trustOf({ ca }) },
    (connection, { head, serverPublicKey }) => {
      if (serverPublicKey === undefined) throw new Error(`${url}: no meta certificate`);
      return beginClient(key, connection, { head, serverPublicKey, clientInfoSent: true });
    },
  );
  try {
    await client.ready();
  } catch (error) {
    client.close();
    throw error;
  }
  return client;
}
