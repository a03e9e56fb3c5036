/**
 * `stun_ask.js PORT ADDRESS...`: asks STUN servers as Tailscale's clients do. For each it prints a line
 * `ASKED answered by FROM, told ADDRESS`.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';

/** A binding request with the transaction 01 02 ... 0c, SOFTWARE `tailnode` and its FINGERPRINT. */
const REQUEST = Buffer.from('000100142112a4420102030405060708090a0b0c802200087461696c6e6f646580280004b32c370f', 'hex');
const ANSWER_HEADER = 28;

const [port, ...addresses] = process.argv.slice(2);
for (const asked of addresses) {
  const socket = createSocket(isIPv6(asked) ? 'udp6' : 'udp4');
  socket.send(REQUEST, Number(port), asked);
  const [answer, from] = await once(socket, 'message');
  socket.close();
  console.log(`${asked} answered by ${from.address}, told ${told(answer)}`);
}

/** The address of the one attribute, XOR-MAPPED-ADDRESS, which is combined with the cookie and the transaction. */
function told(answer) {
  const ip = answer.subarray(ANSWER_HEADER).map((byte, index) => byte ^ answer[4 + index]);
  if (ip.length === 4) return ip.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => ip.readUInt16BE(2 * i).toString(16));
  return new URL(`http://[${groups.join(':')}]/`).hostname.slice(1, -1);
}
