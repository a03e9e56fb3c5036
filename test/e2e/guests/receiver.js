/**
 * Receives one transfer on a free port of 127.0.0.1: 8 bytes of length (big endian), then so many bytes, and answers with their SHA-256
 * in hexadecimal. Prints `port N`, and `received N` for every MiB.
 */
import { createHash } from 'node:crypto';
import { createServer } from 'node:net';

const MIB = 2 ** 20;

const server = createServer((socket) => {
  server.close();
  const hash = createHash('sha256');
  let head = Buffer.alloc(0);
  let length;
  let received = 0;
  socket.on('data', (chunk) => {
    if (length === undefined) {
      head = Buffer.concat([head, chunk]);
      if (head.length < 8) return;
      length = Number(head.readBigUInt64BE());
      chunk = head.subarray(8);
    }
    hash.update(chunk);
    for (let mib = Math.floor(received / MIB) + 1; mib * MIB <= received + chunk.length; mib++) {
      console.log(`received ${mib}`);
    }
    received += chunk.length;
    if (received === length) socket.end(`${hash.digest('hex')}\n`);
  });
});
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
