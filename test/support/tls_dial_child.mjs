/**
 * Dials relays one after another, as a program of its own whose environment its parent decides, and prints what became of each:
 * `{ code, message }`, `{}` for a connection. Ends by itself, unless a dial leaves something behind.
 *
 *     [SYSTEM_BUNDLE=FILE] node tls_dial_child.mjs '[[URL, OPTIONS], ...]'
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const SYSTEM_BUNDLE = '/etc/ssl/certs/ca-certificates.crt';

// The system's bundle is the machine's: here it is the file that the parent names, if it names one.
const { readFileSync } = fs;
fs.readFileSync = (path, ...rest) =>
  readFileSync(path === SYSTEM_BUNDLE ? (process.env.SYSTEM_BUNDLE ?? path) : path, ...rest);
syncBuiltinESMExports();

const { RelayClient, PrivateKey } = await import('../../dist/index.js');
for (const [url, options] of JSON.parse(process.argv[2])) {
  // A deadline that nobody took back would keep the program longer than its parent waits.
  const client = new RelayClient(PrivateKey.generate(), url, { connectTimeout: 60_000, ...options });
  try {
    await client.connect();
    client.close();
    console.log('{}');
  } catch ({ code, message }) {
    console.log(JSON.stringify({ code, message }));
  }
}
