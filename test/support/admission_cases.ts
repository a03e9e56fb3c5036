/** What tailscaleds and admission servers answer, and what derper makes of it: the cases that both relays are held to. */
import type { IncomingMessage, ServerResponse } from 'node:http';

export interface AdmissionCase {
  readonly name: string;
  answer(request: IncomingMessage, response: ServerResponse): void;
  /** What follows `rejected: `, with KEY in place of the key; undefined: the client is admitted. */
  readonly refusal?: string;
}

const text = (status: number, body: string) => (_: IncomingMessage, response: ServerResponse) =>
  void response.writeHead(status).end(body);

const FAILED = 'failed to query local tailscaled status for KEY: ';

/** Of tailscaled's LocalAPI. */
export const TAILSCALED_CASES: readonly AdmissionCase[] = [
  { name: 'a node', answer: text(200, '{"Node":{"ID":1},"UserProfile":{}}') },
  {
    name: 'an unknown key',
    answer: text(404, 'no match for IP:port'),
    refusal: 'peer KEY not authorized (not found in local tailscaled)',
  },
  {
    name: 'a tailscaled that knows no keys',
    answer: text(400, "invalid 'addr' parameter"),
    refusal: 'tailscaled version is too old (out of sync with derper binary)',
  },
  {
    name: 'no access',
    answer: text(403, 'whois access denied\n'),
    refusal: `${FAILED}Access denied: whois access denied`,
  },
  { name: 'an error in JSON', answer: text(500, '{"error":"no backend"}'), refusal: `${FAILED}no backend` },
  { name: 'an error in text', answer: text(500, ' broken\n'), refusal: `${FAILED}500 Internal Server Error: broken` },
];

/** Of an admission URL. */
export const URL_CASES: readonly AdmissionCase[] = [
  { name: 'yes', answer: text(200, '{"Allow":true}') },
  { name: 'yes, in another case and with more behind it', answer: text(200, '{"ALLOW":true} more') },
  { name: 'yes, far too long', answer: text(200, `{"Allow":true}${' '.repeat(1 << 20)}`) },
  { name: 'yes, with its body never ending', answer: (_, response) => void response.write('{"Allow":true}') },
  { name: 'no', answer: text(200, '{"Allow":false}'), refusal: 'admission controller: KEY/127.0.0.1 not allowed' },
  { name: 'nothing said', answer: text(200, 'null'), refusal: 'admission controller: KEY/127.0.0.1 not allowed' },
  { name: 'a status', answer: text(403, '{"Allow":true}'), refusal: 'admission controller: 403 Forbidden' },
  { name: 'a status that is nearly right', answer: text(204, ''), refusal: 'admission controller: 204 No Content' },
];

/** Cases in which both refuse, each in words of its own. */
export const URL_FAULTS: readonly Omit<AdmissionCase, 'refusal'>[] = [
  { name: 'an empty body', answer: text(200, '') },
  { name: 'a text for a boolean', answer: text(200, '{"Allow":"true"}') },
  { name: 'half an answer', answer: text(200, '{"Allow":true') },
  { name: 'an answer behind 4 KiB of space', answer: text(200, `${' '.repeat(4096)}{"Allow":true}`) },
];
