/** The answer of an admission server: `{"Allow":true,"Label":"...","RateLimitBytesPerSec":N}`. */
import type { Readable } from 'node:stream';
import { goBoolean, goInteger, goString, readGoObject } from '../protocol/go_json.js';
import { type Admission, isLabel, MAX_LABEL } from './decision.js';

/** Bytes of an answer that are read; derper's. */
const MAX_ANSWER = 4 << 10;

/**
 * Reads as much of a body as its first JSON value needs; what follows is ignored.
 * @param signal - ends the reading
 * @throws Error when there is no such value in the first 4 KiB
 */
export async function readAnswer(body: Readable, signal: AbortSignal): Promise<Admission> {
  const end = () => body.destroy(new Error('aborted'));
  signal.addEventListener('abort', end, { once: true });
  let bytes = Buffer.alloc(0);
  try {
    if (signal.aborted) end();
    for await (const chunk of body as AsyncIterable<Buffer>) {
      bytes = Buffer.concat([bytes, chunk]).subarray(0, MAX_ANSWER);
      const answer = tryParse(bytes);
      if (!(answer instanceof Error)) return answer;
      if (bytes.length === MAX_ANSWER) throw answer;
    }
    const answer = tryParse(bytes);
    if (answer instanceof Error) throw answer;
    return answer;
  } catch (cause) {
    const why = signal.aborted ? 'it did not end in time' : (cause as Error).message;
    throw new Error(`admission controller: bad answer: ${why}`, { cause });
  } finally {
    signal.removeEventListener('abort', end);
    body.on('error', () => undefined);
    body.destroy();
  }
}

function tryParse(json: Buffer): Admission | Error {
  try {
    return parseAnswer(json);
  } catch (error) {
    return error as Error;
  }
}

/** @throws Error saying what is wrong */
function parseAnswer(json: Buffer): Admission {
  let allow = false;
  let label = '';
  let receiveRate = 0;
  readGoObject(
    json,
    {
      allow(value) {
        allow = goBoolean(value) ?? allow;
      },
      label(value) {
        label = goString(value) ?? label;
      },
      ratelimitbytespersec(value) {
        receiveRate = goInteger(value) ?? receiveRate;
      },
    },
    { mayBeFollowed: true },
  );
  if (label !== '' && !isLabel(label)) {
    throw new Error(
      `Label: must be at most ${MAX_LABEL} printable ASCII characters without spaces, quotes and backslashes`,
    );
  }
  if (receiveRate < 0) throw new Error('RateLimitBytesPerSec: must be an integer from 0 on');
  return { allow, ...(label !== '' && { label }), ...(receiveRate > 0 && { receiveRate }) };
}
