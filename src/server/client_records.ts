/** Clients as shards tell of them: records of `ClientRecord` in native/core/client_listing.h, little-endian. */
import { addressBytes, addressOf, withPort } from '../ip_address.js';
import type { ConnectionId } from '../native.js';
import { PublicKey } from '../protocol/key.js';

/** Bytes of a record. */
export const RECORD_LENGTH = 176;

/** Bytes of a record before its members. */
const AT = {
  key: 0,
  ip: 32,
  number: 48,
  id: 56,
  connectedAt: 64,
  connectedFor: 72,
  rxPackets: 80,
  rxBytes: 88,
  txPackets: 96,
  txBytes: 104,
  senders: 112,
  version: 120,
  port: 136,
  flags: 138,
  appNameLength: 139,
  appName: 140,
} as const;

const FLAGS = { active: 1, duplicate: 2, disabled: 4, home: 8, mesh: 16, notIdeal: 32, prober: 64 } as const;

/** A client that is connected; packets and bytes are those of this connection, bytes those of the packets alone. */
export interface ListedClient {
  readonly id: ConnectionId;
  /** How many upgrades to DERP the relay had seen with this one: a number that rises with the order of coming. */
  readonly number: number;
  readonly key: PublicKey;
  /** `ip:port`; empty for a stream whose address is unknown. */
  readonly address: string;
  /** Nanoseconds since 1970. */
  readonly connectedAt: bigint;
  /** Milliseconds since then. */
  readonly connectedFor: number;
  /** Whether it gets the packets for its key. */
  readonly isActive: boolean;
  /** Whether its key has other connections, too. */
  readonly isDuplicate: boolean;
  /** Whether it gets no packets since connections of its key fought each other; see `duplicatePolicy`. */
  readonly isDisabled: boolean;
  /** Whether the relay is the client's home. */
  readonly isHome: boolean;
  readonly isMeshPeer: boolean;
  /** Whether it said that another node of the region would be ideal. */
  readonly isNotIdeal: boolean;
  readonly isProber: boolean;
  /** Protocol version that the client says it has. */
  readonly version: number;
  /** What the client calls its program; mostly empty. */
  readonly appName: string;
  /** Packets that it sent. */
  readonly receivedPackets: number;
  readonly receivedBytes: number;
  /** Packets that were sent to it. */
  readonly sentPackets: number;
  readonly sentBytes: number;
  /** Keys that it received packets from: exact up to 4,096, an estimate beyond. */
  readonly uniqueSenders: number;
}

/** One record. */
export function clientAt(records: Buffer, at: number): ListedClient {
  const figure = (offset: number) => Number(records.readBigUInt64LE(at + offset));
  const flags = records.readUInt8(at + AT.flags);
  const port = records.readUInt16LE(at + AT.port);
  const ip = records.subarray(at + AT.ip, at + AT.number);
  const appName = at + AT.appName;
  return {
    id: figure(AT.id),
    number: figure(AT.number),
    key: PublicKey.fromBytes(records.subarray(at, at + AT.ip)),
    address: port === 0 ? '' : withPort(addressOf(ip), port),
    connectedAt: records.readBigUInt64LE(at + AT.connectedAt),
    connectedFor: figure(AT.connectedFor),
    isActive: (flags & FLAGS.active) !== 0,
    isDuplicate: (flags & FLAGS.duplicate) !== 0,
    isDisabled: (flags & FLAGS.disabled) !== 0,
    isHome: (flags & FLAGS.home) !== 0,
    isMeshPeer: (flags & FLAGS.mesh) !== 0,
    isNotIdeal: (flags & FLAGS.notIdeal) !== 0,
    isProber: (flags & FLAGS.prober) !== 0,
    version: Number(records.readBigInt64LE(at + AT.version)),
    appName: records.toString('utf8', appName, appName + records.readUInt8(at + AT.appNameLength)),
    receivedPackets: figure(AT.rxPackets),
    receivedBytes: figure(AT.rxBytes),
    sentPackets: figure(AT.txPackets),
    sentBytes: figure(AT.txBytes),
    uniqueSenders: figure(AT.senders),
  };
}

/** Orders of clients, by derper's names; the numbers of `ClientSort` in native/core/client_listing.h are their places. */
export const CLIENT_SORTS: readonly ClientSort[] = ['key', 'ip', 'conn', 'connected', 'rx', 'tx', 'rxpkts', 'txpkts'];

/** What clients are ordered by: key, address, number, time of connecting, bytes and packets from (`rx`) and to (`tx`) the client. */
export type ClientSort = 'key' | 'ip' | 'conn' | 'connected' | 'rx' | 'tx' | 'rxpkts' | 'txpkts';

/** Where the number that an order is by stands; keys and addresses are no numbers. */
const NUMBERS: Partial<Record<ClientSort, number>> = {
  conn: AT.number,
  connected: AT.connectedAt,
  rx: AT.rxBytes,
  tx: AT.txBytes,
  rxpkts: AT.rxPackets,
  txpkts: AT.txPackets,
};

/** Compares two records as native/core/client_listing.cc does. */
export function compareRecords(a: Buffer, b: Buffer, sort: ClientSort, descending: boolean): number {
  const values = compareValues(a, b, sort);
  const result = values !== 0 ? values : compareNumbers(a, b, AT.number);
  return descending ? -result : result;
}

function compareValues(a: Buffer, b: Buffer, sort: ClientSort): number {
  if (sort === 'key') return a.compare(b, AT.key, AT.ip, AT.key, AT.ip);
  if (sort !== 'ip') return compareNumbers(a, b, NUMBERS[sort]!);
  const ips = a.compare(b, AT.ip, AT.number, AT.ip, AT.number);
  const families = Number(isIpv4(b)) - Number(isIpv4(a));
  return families || ips || a.readUInt16LE(AT.port) - b.readUInt16LE(AT.port);
}

const IPV4_WITHIN_IPV6 = addressBytes('0.0.0.0')!.subarray(0, 12);

function isIpv4(record: Buffer): boolean {
  return record.subarray(AT.ip, AT.ip + 12).equals(IPV4_WITHIN_IPV6);
}

function compareNumbers(a: Buffer, b: Buffer, at: number): number {
  const [left, right] = [a.readBigUInt64LE(at), b.readBigUInt64LE(at)];
  return left < right ? -1 : left > right ? 1 : 0;
}

/** A place in an order of clients. */
export interface ClientPlace {
  sort: ClientSort;
  /** A key, an `ip` or `ip:port` in its canonical form, else a number. */
  value: PublicKey | { ip: string; port: number | undefined } | bigint;
  number: bigint | undefined;
}

/** The record that stands for a place. */
export function recordAt({ sort, value, number }: ClientPlace): Buffer {
  const record = Buffer.alloc(RECORD_LENGTH);
  record.writeBigUInt64LE(clamped(number ?? 0n), AT.number);
  if (value instanceof PublicKey) record.set(value.bytes, AT.key);
  else if (typeof value === 'bigint') record.writeBigUInt64LE(clamped(value), NUMBERS[sort]!);
  else {
    record.set(addressBytes(value.ip)!, AT.ip);
    record.writeUInt16LE(value.port ?? 0, AT.port);
  }
  return record;
}

const MAX_UINT64 = 2n ** 64n - 1n;

function clamped(value: bigint): bigint {
  return value < 0n ? 0n : value > MAX_UINT64 ? MAX_UINT64 : value;
}
