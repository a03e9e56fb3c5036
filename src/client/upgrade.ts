/** From HTTP to DERP on a dialled connection: the request, and either a 101 or, with fast start, DERP at once. */
import { type IncomingMessage, request, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { DerpError } from '../errors.js';
import { FRAME_HEADER_LENGTH } from '../protocol/frame.js';
import { MAX_ERROR_TEXT, MAX_RESPONSE_HEAD } from './defaults.js';
import { displayUrl } from './dial.js';

/** What the request says. */
export interface UpgradeRequest {
  readonly url: URL;
  /** Whether the relay shall leave out the HTTP answer. */
  readonly fastStart: boolean;
  /** Name of the node that the client would rather be connected to. */
  readonly idealNode: string | undefined;
  /** A ClientInfo frame that need not wait for the relay's key: it goes out with the request, which is then a fast start. */
  readonly early: Uint8Array | undefined;
}

/**
 * Upgrades the connection; resolves with the bytes of DERP that were already read.
 * @throws DerpError `ERR_DERP_HTTP_STATUS` when the relay answers with another status than 101; the connection's own errors as they are
 */
export function upgrade(socket: Duplex, wanted: UpgradeRequest): Promise<Buffer> {
  return wanted.fastStart || wanted.early !== undefined ? startFast(socket, wanted) : awaitSwitch(socket, wanted);
}

function headersOf({ url, idealNode }: UpgradeRequest, fastStart: boolean): Record<string, string> {
  return {
    Host: url.host,
    Connection: 'Upgrade',
    Upgrade: 'DERP',
    ...(fastStart ? { 'Derp-Fast-Start': '1' } : {}),
    ...(idealNode === undefined ? {} : { 'Ideal-Node': idealNode }),
  };
}

function awaitSwitch(socket: Duplex, wanted: UpgradeRequest): Promise<Buffer> {
  const { url } = wanted;
  return new Promise((resolve, reject) => {
    const outgoing = request({
      method: 'GET',
      path: url.pathname + url.search,
      headers: headersOf(wanted, false),
      createConnection: () => socket,
    });
    outgoing.on('error', reject);
    outgoing.on('upgrade', (_response, _socket, head) => resolve(head));
    outgoing.on('response', (response) => {
      firstText(response).then((text) => reject(statusError(url, response.statusCode ?? 0, text)), reject);
    });
    outgoing.end();
  });
}

async function firstText(response: IncomingMessage): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) {
    text += chunk;
    if (text.length >= MAX_ERROR_TEXT) break;
  }
  return text;
}

/** Writes the request and looks at the first bytes only: they are a frame, or the HTTP answer of a relay that wants something else. */
function startFast(socket: Duplex, wanted: UpgradeRequest): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0);
    const settle = (act: () => void) => {
      socket.off('data', onData).off('error', onError).off('close', onClose).pause();
      act();
    };
    const onData = (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      const answer = fastStartAnswer(wanted.url, received);
      if (answer instanceof DerpError) settle(() => reject(answer));
      else if (answer !== undefined) settle(() => resolve(answer));
    };
    const onError = (error: Error) => settle(() => reject(error));
    const onClose = () => onError(new Error('the relay closed the connection without an answer'));
    socket.on('data', onData).on('error', onError).on('close', onClose);
    const headers = Object.entries(headersOf(wanted, true)).map(([name, value]) => `${name}: ${value}\r\n`);
    const head = `GET ${wanted.url.pathname}${wanted.url.search} HTTP/1.1\r\n${headers.join('')}\r\n`;
    socket.write(Buffer.concat([Buffer.from(head, 'latin1'), wanted.early ?? Buffer.alloc(0)]));
  });
}

/** The bytes of DERP among what was received, the error that it says, or `undefined` when more is needed to tell. */
function fastStartAnswer(url: URL, received: Buffer): Buffer | DerpError | undefined {
  if (received.length < FRAME_HEADER_LENGTH) return undefined;
  if (received.toString('latin1', 0, 5) !== 'HTTP/') return received;
  const end = received.indexOf('\r\n\r\n');
  if (end < 0) {
    if (received.length < MAX_RESPONSE_HEAD) return undefined;
    return new DerpError(
      'ERR_DERP_BAD_HANDSHAKE',
      `${displayUrl(url)}: HTTP answer with a head over ${MAX_RESPONSE_HEAD} bytes`,
    );
  }
  const status = Number(/^HTTP\/\d\.\d (\d{3})/.exec(received.toString('latin1', 0, 16))?.[1] ?? 0);
  const rest = received.subarray(end + 4);
  return status === 101 ? rest : statusError(url, status, rest.toString('utf8'));
}

function statusError(url: URL, status: number, text: string): DerpError {
  const what = `${status} ${STATUS_CODES[status] ?? ''}`.trim();
  const quoted = text.slice(0, MAX_ERROR_TEXT).trim();
  const detail = quoted === '' ? '' : `: ${JSON.stringify(quoted)}`;
  return new DerpError('ERR_DERP_HTTP_STATUS', `${displayUrl(url)} answered ${what} to the DERP upgrade${detail}`);
}
