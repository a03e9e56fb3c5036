/** `stranger.js LIBRARY URL CA`: connects with a new key that no tailnet knows; prints `admitted`, or `refused` and why. */
import { readFileSync } from 'node:fs';

const [library, url, ca] = process.argv.slice(2);
const { PrivateKey, RelayClient } = await import(library);
const client = new RelayClient(PrivateKey.generate(), url, { ca: readFileSync(ca) });
try {
  // The relay decides after connect(): its first message says that it admitted the client.
  await client.recv({ signal: AbortSignal.timeout(20_000) });
  console.log('admitted');
} catch (error) {
  console.log(`refused: ${error.code}`);
}
process.exit(0);
