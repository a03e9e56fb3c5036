/** The bare forwarder as the relay of a bench run: native/forwarder.h in a process of its own, with TLS when started with a certificate's folder. Ends by SIGTERM. */
import { readCertificate } from './certificate.js';
import { newKeyPair } from './hello.js';
import { addon } from './load.js';
import type { RelayReady } from './relay.js';

const folder = process.argv[2];
const { publicKey } = newKeyPair();
const { port, failed } = addon.forward(publicKey, folder === undefined ? undefined : readCertificate(folder));
failed.catch((error: Error) => {
  console.error(`bare forwarder: ${error.message}`);
  process.exit(1);
});
// A normal exit would wait for the forwarder's thread, which never ends.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
process.send?.({ port, publicKey } satisfies RelayReady);
