/** A handshake thread: takes a connection from its first byte to the sealed, unsent ServerInfo. Many at once; all waiting is native. */
import { parentPort } from 'node:worker_threads';
import { workerData } from 'piscina';
import { type Admission, ALLOWED } from '../admission/decision.js';
import { DerpError } from '../errors.js';
import { hostOf, withHost } from '../ip_address.js';
import { LineBudget, OPERATOR_RATE, withSuppressed } from '../log_limit.js';
import { HandshakeStart, type NativeHandshakeIo, native } from '../native.js';
import { FRAME_HEADER_LENGTH, FrameType, readBodyLength, serverKeyFrame } from '../protocol/frame.js';
import {
  type ClientInfo,
  MAX_CLIENT_INFO_SIZE,
  MIN_CLIENT_INFO_SIZE,
  openClientInfo,
  sealServerInfo,
} from '../protocol/info.js';
import { PrivateKey, type PublicKey } from '../protocol/key.js';
import { TrustedProxies } from '../proxies.js';
import { MAX_REQUEST_HEAD, type RequestHead, readHead } from '../requests/head.js';
import { RefusedRequest } from '../requests/refusal.js';
import { threadName } from '../thread_name.js';
import { AdmissionAsker } from './admission.js';
import { HANDSHAKE_NICE, READ_AHEAD } from './limits.js';
import {
  HANDSHAKE_FAILURES,
  type HandshakeFailure,
  type HandshakeTask,
  type HandshakeThreadData,
  THREAD_READY,
} from './messages.js';
import { type DerpRequest, derpRequest } from './request.js';

const {
  relayId,
  started,
  derp,
  privateKey: keyBytes,
  requestTimeout,
  clientInfoTimeout,
  admissionTimeout,
  proxies: proxyRanges,
} = workerData as HandshakeThreadData;
const privateKey = PrivateKey.fromBytes(keyBytes);
const proxies = new TrustedProxies(proxyRanges);

const serverKey = serverKeyFrame(privateKey.publicKey);
/** The answer to an upgrade and ServerKey leave in one write. */
const answerAndServerKey = Buffer.concat([
  Buffer.from(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n' +
      `Derp-Public-Key: ${privateKey.publicKey.hex}\r\n\r\n`,
  ),
  serverKey,
]);

native.setThreadName(threadName('hs', Atomics.add(started, 0, 1)));
native.setThreadNice(HANDSHAKE_NICE);

/** Takes connections from the moment on that the thread has its task. */
let io: NativeHandshakeIo;
/** Undefined: all clients are let in. */
let admission: AdmissionAsker | undefined;

const MALFORMED_REQUEST = HANDSHAKE_FAILURES.indexOf('malformed_request');

/** A handshake that cannot go on. */
class HandshakeError extends Error {
  readonly failure: HandshakeFailure;
  constructor(failure: HandshakeFailure, message: string) {
    super(message);
    this.failure = failure;
  }
}

let end: (value: undefined) => void = () => undefined;
const ended = new Promise<undefined>((resolve) => {
  end = resolve;
});

/** The task that piscina runs, once a thread: handshakes come and go natively until the relay says that it is over. */
export default function serve(task: HandshakeTask): Promise<undefined> {
  if (task.admission !== undefined) admission = new AdmissionAsker(task.admission);
  io = new native.HandshakeIo(relayId, onRequests);
  parentPort?.postMessage(THREAD_READY);
  return ended;
}

function onRequests(requests: number[]): void {
  for (let i = 0; i < requests.length; i += 2) {
    if (requests[i + 1] === HandshakeStart.END) end(undefined);
    else void handshake(requests[i]!, requests[i + 1]!);
  }
}

async function handshake(id: number, start: number): Promise<void> {
  const isUpgraded = start !== HandshakeStart.REQUEST;
  try {
    io.open(id, isUpgraded ? clientInfoTimeout : requestTimeout);
    let request: DerpRequest = { upgrade: true, fastStart: start === HandshakeStart.DERP, notIdeal: false };
    if (!isUpgraded) {
      request = await readRequest(id);
      if (!request.upgrade) return io.serveHttp(id, MALFORMED_REQUEST, '');
    }
    await greet(id, request);
  } catch (error) {
    if (error instanceof RefusedRequest) return io.serveHttp(id, MALFORMED_REQUEST, error.refusal);
    const failure = failureOf(error);
    const suppressed = reports.get(failure)?.take(performance.now());
    const text = withSuppressed((error as Error).message, suppressed ?? 0);
    io.fail(id, HANDSHAKE_FAILURES.indexOf(failure), suppressed !== undefined, text);
  }
}

/** Failures that the log hears of although clients are not logged; all are counted. */
const reports = new Map<HandshakeFailure, LineBudget>([
  // It may be the relay's own fault: a wrong name, or an expired certificate.
  ['tls', new LineBudget(OPERATOR_RATE)],
  ['internal', new LineBudget(OPERATOR_RATE)],
  ['refused', new LineBudget(OPERATOR_RATE)],
  ['proxy', new LineBudget(OPERATOR_RATE)],
]);

/**
 * The request, its head consumed if it upgrades to DERP.
 * @throws RefusedRequest when it is malformed
 */
async function readRequest(id: number): Promise<DerpRequest> {
  let searched = 0;
  for (;;) {
    const bytes = await io.read(id, searched + 1, MAX_REQUEST_HEAD);
    const found = readHead(bytes, searched);
    if (found === undefined) {
      searched = bytes.length;
      continue;
    }
    const request = derpRequest(found.head);
    if (!derp) request.upgrade = false;
    if (request.upgrade) {
      if (proxyRanges.length > 0) noteClient(id, found.head);
      io.consume(id, found.end);
    }
    return request;
  }
}

/** A trusted proxy's headers tell the client's address, though not its port. */
function noteClient(id: number, { headers }: RequestHead): void {
  const remote = io.remote(id);
  const client = proxies.clientOf(hostOf(remote), headers);
  if (client !== undefined) io.setRemote(id, withHost(remote, client));
}

/** From ServerKey to ServerInfo. */
async function greet(id: number, { fastStart, notIdeal }: DerpRequest): Promise<void> {
  io.upgraded(id);
  io.setTimeout(id, clientInfoTimeout);
  await io.write(id, fastStart ? serverKey : answerAndServerKey);
  // Dripping does not extend it.
  io.setTimeout(id, clientInfoTimeout);
  const { body, end } = await readClientInfo(id);
  const { key, info, box } = openClientInfo(body, privateKey);
  io.consume(id, end);
  const { label, receiveRate } = admission === undefined ? ALLOWED : await admit(id, admission, key, info);
  const serverInfo = sealServerInfo(key, privateKey, box);
  const { meshKey, isProber: prober, version, appName } = info;
  if (!io.adopt(id, key.bytes, serverInfo, { meshKey, prober, notIdeal, version, appName, label, receiveRate })) {
    throw new HandshakeError('discarded', 'its shard has ended, or another connection needed its room');
  }
}

/**
 * The decision about a client that may use the relay.
 * @throws HandshakeError when it may not
 */
async function admit(id: number, asker: AdmissionAsker, key: PublicKey, info: ClientInfo): Promise<Admission> {
  if (info.meshKey !== undefined && io.provesMeshKey(info.meshKey)) return ALLOWED;
  const { appName, version, isProber } = info;
  io.setTimeout(id, admissionTimeout);
  const question = { key: key.bytes, address: io.remote(id), appName, version, isProber };
  const decision = await asker.ask(question, io.watchEnd(id));
  if (decision.allow) return decision;
  throw new HandshakeError('refused', `client ${key} rejected: ${decision.text}`);
}

async function readClientInfo(id: number): Promise<{ body: Buffer; end: number }> {
  let bytes = await io.read(id, FRAME_HEADER_LENGTH, READ_AHEAD);
  const type = bytes[0]!;
  const length = readBodyLength(bytes);
  if (type !== FrameType.CLIENT_INFO) {
    throw new HandshakeError(
      'bad_first_frame',
      `first frame has type 0x${type.toString(16)}, ClientInfo must be first`,
    );
  }
  if (length < MIN_CLIENT_INFO_SIZE || length > MAX_CLIENT_INFO_SIZE) {
    throw new HandshakeError(
      'bad_client_info',
      `ClientInfo of ${length} bytes, must have ${MIN_CLIENT_INFO_SIZE} to ${MAX_CLIENT_INFO_SIZE}`,
    );
  }
  const end = FRAME_HEADER_LENGTH + length;
  if (bytes.length < end) bytes = await io.read(id, end, Math.max(end, READ_AHEAD));
  return { body: bytes.subarray(FRAME_HEADER_LENGTH, end), end };
}

function failureOf(error: unknown): HandshakeFailure {
  if (error instanceof HandshakeError) return error.failure;
  if (error instanceof DerpError) return error.code === 'ERR_DERP_BOX' ? 'bad_box' : 'bad_client_info';
  const { code } = error as { code?: string };
  return HANDSHAKE_FAILURES.find((failure) => failure === code) ?? 'internal';
}
