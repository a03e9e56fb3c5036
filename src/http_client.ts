/** What our questions to other people's HTTP servers have in common. */
import type { Axios } from 'axios';
import { canonicalAddress } from './ip_address.js';
import { packageVersion } from './version.js';

let client: Promise<Axios> | undefined;

/** The client, loaded when it is first asked for. It uses the proxy that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name. */
export function httpClient(): Promise<Axios> {
  client ??= import('axios').then(({ default: axios }) => axios.create({ adapter: 'http' }));
  return client;
}

/** As Go has it, what is on this machine is asked without a proxy. */
export function isLoopback(url: string): boolean {
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '');
  const address = canonicalAddress(host);
  return host === 'localhost' || address === '::1' || address?.startsWith('127.') === true;
}

/** Whether a text is a URL that the client can ask. */
export function isHttpUrl(url: string): boolean {
  return URL.canParse(url) && /^https?:$/.test(new URL(url).protocol);
}

let agentText: string | undefined;

export function userAgent(): string {
  agentText ??= `derplane/${packageVersion()}`;
  return agentText;
}
