import { lookup } from 'node:dns/promises';

/** All IPv4 and IPv6 addresses of a name, as the system resolves it. @throws the system's error */
export async function allAddresses(name: string): Promise<string[]> {
  return (await lookup(name, { all: true })).map(({ address }) => address);
}
