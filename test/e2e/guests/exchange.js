/**
 * `exchange.js LIBRARY URL-A URL-B CA`: two clients, one at each relay, send each other a numbered packet every 5 ms until stdin closes.
 * Prints `exchanging` once packets arrive in both directions; at the end, when all that was sent had time to arrive, `sent N lost N`.
 */
import { readFileSync } from 'node:fs';

const [library, urlA, urlB, caFile] = process.argv.slice(2);
const { PrivateKey, RelayClient } = await import(library);
const ca = readFileSync(caFile);
/** Milliseconds that the last packets have to arrive. */
const PATIENCE = 2_000;

const keys = [PrivateKey.generate(), PrivateKey.generate()];
const clients = [urlA, urlB].map((url, i) => new RelayClient(keys[i], url, { ca }));
await Promise.all(clients.map((client) => client.connect()));

const received = [new Set(), new Set()];
clients.forEach(async (client, i) => {
  for await (const { data } of client.packets()) received[i].add(Buffer.from(data).readUInt32BE());
});

/** One packet each way; those before both arrive do not count, since a link may not know the keys yet. */
async function send(number) {
  const packet = Buffer.alloc(4);
  packet.writeUInt32BE(number);
  await Promise.all(clients.map((client, i) => client.send(keys[1 - i].publicKey, packet)));
}

let number = 0;
const pause = () => new Promise((resolve) => setTimeout(resolve, 5));
while (received.some((numbers) => numbers.size === 0)) {
  await send(number++);
  await pause();
}
console.log('exchanging');
let running = true;
process.stdin.on('end', () => (running = false)).resume();
const first = number;
while (running) {
  await send(number++);
  await pause();
}
const wanted = number - first;
const arrived = () => received.map((numbers) => [...numbers].filter((n) => n >= first).length);
const deadline = Date.now() + PATIENCE;
while (arrived().some((count) => count < wanted) && Date.now() < deadline) await pause();
const lost = arrived().reduce((sum, count) => sum + wanted - count, 0);
console.log(`sent ${2 * wanted} lost ${lost}`);
process.exit(0);
