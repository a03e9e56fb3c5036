import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { AcmeRig } from './support/acme_rig.js';
import { TestClock } from './support/test_clock.js';

const HOUR = 3_600_000;

let rig: AcmeRig;

beforeEach(async () => {
  rig = await AcmeRig.make();
});
afterEach(async () => {
  vi.restoreAllMocks();
  syncBuiltinESMExports();
  await rig.close();
});

/** From now on the machine has 40 addresses in this network. */
const move = (network: string) => {
  const addresses = Array.from({ length: 40 }, (_, i) => ({ address: `${network}.${i + 1}` }));
  vi.spyOn(os, 'networkInterfaces').mockReturnValue({ eth0: addresses } as never);
  syncBuiltinESMExports();
};

test('a machine whose addresses change has certificates for those of today, and keeps that of -hostname', async () => {
  const clock = new TestClock();
  move('198.51.100');
  const source = await rig.source({
    directory: 'http://127.0.0.1:9/',
    hostname: '192.0.2.7',
    ipCertificates: true,
    clock,
    env: {},
  });
  source.start();
  expect(rig.sink.expected).toContain('198.51.100.40');
  move('203.0.113');
  clock.pass(HOUR);
  expect(rig.sink.expected).toContain('203.0.113.40');
  expect(rig.sink.expected).not.toContain('198.51.100.40');
  source.wanted('192.0.2.7');
  expect(await rig.log.line(/getting cert for 192\.0\.2\.7/)).toMatch(/next attempt/);
});
