/** Which requests become DERP connections. */
import { headerOf, type RequestHead } from '../requests/head.js';
import { parseRequestPath } from '../requests/target.js';

/** What the relay needs to know of a request. */
export interface DerpRequest {
  /** Whether it upgrades to DERP on `/derp`. */
  upgrade: boolean;
  /** Whether the client wants no HTTP answer at all. */
  fastStart: boolean;
  /** Whether the client says that this is not its ideal node. */
  notIdeal: boolean;
}

/** Reads a well-formed request, as laxly as derper: the method, `Connection` and the query do not matter, and of a header the first counts. */
export function derpRequest(head: RequestHead): DerpRequest {
  return {
    upgrade:
      head.method !== 'CONNECT' &&
      isDerpPath(head.target) &&
      isDerpUpgrade(headerOf(head, 'upgrade'), headerOf(head, 'sec-websocket-protocol')),
    fastStart: headerOf(head, 'derp-fast-start') === '1',
    notIdeal: (headerOf(head, 'ideal-node') ?? '') !== '',
  };
}

/** Whether a target is DERP's, and needs no redirect to be it. */
export function isDerpPath(target: string): boolean {
  const { path, redirect } = parseRequestPath(target) ?? {};
  return path === '/derp' && redirect === undefined;
}

/** Very old clients say `websocket` and mean DERP; those that mean WebSocket offer a subprotocol with `derp` in it. */
export function isDerpUpgrade(upgrade: string | undefined, protocols: string | undefined): boolean {
  const value = upgrade?.toLowerCase();
  return value === 'derp' || (value === 'websocket' && !(protocols ?? '').includes('derp'));
}

/** Whether an `Upgrade` header asks for one of the two ways to speak DERP. */
export function isKnownUpgrade(upgrade: string | undefined): boolean {
  return /^(?:derp|websocket)$/i.test(upgrade ?? '');
}
