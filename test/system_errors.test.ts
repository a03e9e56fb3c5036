/** Errors of the system come as DerpErrors that keep what the system said. */
import { DerpError, PrivateKey, RelayClient, Server } from 'derplane';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const URL_OF_NOBODY = 'http://127.0.0.1:1/derp';
const key = PrivateKey.generate();
let relay: Server;

beforeAll(() => {
  relay = new Server(key, { shards: 1, handshake: { threads: 1 } });
});
afterAll(() => relay.close());

describe('an error of the system', () => {
  test('has its code, call, address and port', async () => {
    const other = new Server(key, { shards: 1, handshake: { threads: 1 } });
    const { port } = await other.listen({ host: '127.0.0.1', port: 0 });
    try {
      const error = await relay.listen({ host: '127.0.0.1', port }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(DerpError);
      expect(error).toMatchObject({
        code: 'EADDRINUSE',
        syscall: 'listen',
        address: '127.0.0.1',
        port,
        errno: -98,
        cause: expect.objectContaining({ code: 'EADDRINUSE' }),
      });
      expect((error as Error).message).toMatch(
        new RegExp(`^listen EADDRINUSE: address already in use 127.0.0.1:${port}$`, 'i'),
      );
    } finally {
      await other.close();
    }
  });

  test('of a name that is not known is that of the look-up', async () => {
    const error = await relay.listen({ host: 'no-such-host.invalid', port: 0 }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DerpError);
    expect(error).toMatchObject({ syscall: 'getaddrinfo', address: 'no-such-host.invalid' });
    expect((error as DerpError).code).toMatch(/^(ENOTFOUND|EAI_AGAIN)$/);
  });

  test('comes with a connection that fails', async () => {
    using nobody = new RelayClient(key, URL_OF_NOBODY);
    await expect(nobody.connect()).rejects.toMatchObject({
      code: 'ERR_DERP_CONNECT',
      syscall: 'connect',
      address: '127.0.0.1',
      port: 1,
      errno: -111,
    });
  });
});
