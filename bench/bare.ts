/** The bare forwarder as the relay of a bench run: native/forwarder.h in a process of its own. Ends by SIGTERM. */
import { createRequire } from 'node:module';
import { newKeyPair } from './hello.js';
import type { LoadAddon } from './load.js';
import type { RelayReady } from './relay.js';

const addon = createRequire(import.meta.url)('../../build/Release/derplane_load.node') as LoadAddon;

const { publicKey } = newKeyPair();
const { port, failed } = addon.forward(publicKey);
failed.catch((error: Error) => {
  console.error(`bare forwarder: ${error.message}`);
  process.exit(1);
});
process.on('disconnect', () => process.exit(0));
process.send?.({ port, publicKey } satisfies RelayReady);
