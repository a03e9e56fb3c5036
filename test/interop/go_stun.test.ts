/** STUN as Tailscale's own clients ask for it. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { StunServer } from 'derplane';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GO_DERPER_VERSION } from '../support/go_derper.js';
import { build, type GoProgram, pathOf } from '../support/go_programs.js';
import { BUILD_TIMEOUT, buildDerpinterop, goMissing, runCheck } from './derpinterop.js';

const stunc: GoProgram = {
  name: 'stunc',
  module: 'tailscale.com',
  version: GO_DERPER_VERSION,
  folder: 'cmd/stunc',
};

describe.skipIf(goMissing !== undefined)("Tailscale's STUN clients", () => {
  /** On both families. */
  let server: StunServer;

  beforeAll(async () => {
    await buildDerpinterop();
    await build([stunc], BUILD_TIMEOUT);
    server = await StunServer.listen({ port: 0 });
  }, 2 * BUILD_TIMEOUT);
  afterAll(() => server.close());

  // 127.0.0.2: the kernel would answer from 127.0.0.1.
  it.each(['127.0.0.1', '127.0.0.2', '[::1]'])('learn their address from %s, which answers itself', async (host) => {
    const { success } = server.stats().requests;
    await runCheck('stun', { url: 'http://127.0.0.1/derp', stun: `${host}:${server.port}` });
    await expect.poll(() => server.stats().requests.success).toBe(success + 1);
  });

  it.each([
    ['127.0.0.1', '127.0.0.1:'],
    ['::1', '[::1]:'],
  ])('stunc prints the address that it asks %s from', async (host, prefix) => {
    const { stdout, stderr } = await promisify(execFile)(pathOf(stunc), [host, String(server.port)]);
    expect(stdout + stderr).toContain(`stun addr: ${prefix}`);
  });
});
