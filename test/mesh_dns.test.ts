/** Mesh entries that follow DNS, and how fast links are dialled again. */
import { describe, expect, test } from 'vitest';
import { LimitedLog } from '../dist/log_limit.js';
import { MESH_DNS_MAX_ADDRESSES } from '../dist/server/defaults.js';
import { MeshDns } from '../dist/server/mesh_dns.js';
import { isMeshName, type MeshName, parseMeshEntry } from '../dist/server/mesh_host.js';
import { Redial } from '../dist/server/redial.js';
import { LogWatch } from './support/log_watch.js';
import { RegionRelay } from './support/region_relay.js';

const options = { insecureHttp: true, hostname: 'derp.example.com' };

describe('an entry dns:', () => {
  test.each([
    ['dns:relays.example', 'relays.example', 443, 'https', 'derp.example.com'],
    ['dns:Relays.Example.:8443', 'relays.example', 8443, 'https', 'derp.example.com'],
    ['eu.example/dns:relays.example', 'relays.example', 443, 'https', 'eu.example'],
    ['192.0.2.7/dns:relays.example:444', 'relays.example', 444, 'https', '192.0.2.7'],
    ['https://eu.example/dns:relays', 'relays', 443, 'https', 'eu.example'],
    ['http://dns:relays.example:3340', 'relays.example', 3340, 'http', undefined],
    ['http://dns:relays.example', 'relays.example', 80, 'http', undefined],
  ])('%s is read', (name, dnsName, port, scheme, certificateName) => {
    expect(parseMeshEntry(name, options)).toEqual({ name, dnsName, port, scheme, certificateName });
  });

  test.each([
    ['dns:', '"": must be a DNS name, needs [HOST/]dns:NAME[:PORT]'],
    ['dns:192.0.2.1', '"192.0.2.1": must be a DNS name, needs [HOST/]dns:NAME[:PORT]'],
    ['dns:a b', 'has a space or control character; entries are not trimmed'],
    ['dns:relays:0', 'port "0": must be an integer from 1 to 65535'],
    ['dns:relays:', 'port "": must be an integer from 1 to 65535'],
    ['dns:relays/derp', '"relays/derp": must be a DNS name, needs [HOST/]dns:NAME[:PORT]'],
    ['a_b c/dns:relays', 'has a space or control character; entries are not trimmed'],
    ['a:1/dns:relays', 'host "a:1": must be a DNS name or an IP address, needs [HOST/]dns:NAME[:PORT]'],
    ['http://eu.example/dns:relays', '"eu.example" is the name of a certificate, and http:// has none'],
  ])('%s is refused', (entry, reason) => {
    expect(() => parseMeshEntry(entry, options)).toThrow(`mesh host ${JSON.stringify(entry)}: ${reason}`);
  });

  test('without TLS needs -mesh-insecure-http, with TLS the name of a certificate', () => {
    expect(() => parseMeshEntry('http://dns:relays', { insecureHttp: false, hostname: 'x' })).toThrow(
      'with dns: this needs -mesh-insecure-http',
    );
    expect(() => parseMeshEntry('dns:relays', { insecureHttp: false, hostname: undefined })).toThrow(
      'Give HOST/dns:NAME, or -hostname (option mesh.hostname)',
    );
  });

  test('is told from a relay by its form', () => {
    expect(isMeshName(parseMeshEntry('dns.example:443', options))).toBe(false);
    expect(isMeshName(parseMeshEntry('dns:relays:443', options))).toBe(true);
  });
});

/** A name whose lookups the test answers one by one. */
class Lookups {
  readonly links = new Map<string, { closed: boolean; up(): void }>();
  readonly log = new LogWatch();
  readonly dns: MeshDns;
  #answer: (addresses: string[] | Error) => void = () => {};
  #asked: Promise<void> = Promise.resolve();
  #ask: () => void = () => {};

  constructor(name: Partial<MeshName> = {}) {
    this.#expectLookup();
    const entry: MeshName = {
      name: 'dns:relays',
      dnsName: 'relays',
      port: 443,
      scheme: 'https',
      certificateName: 'derp.example.com',
      ...name,
    };
    this.dns = new MeshDns(entry, {
      interval: 1,
      log: new LimitedLog(this.log),
      resolve: () =>
        new Promise((resolve, reject) => {
          this.#answer = (found) => (found instanceof Error ? reject(found) : resolve(found));
          this.#ask();
        }),
      link: ({ name: address, url, dialHost }) => {
        const link = { closed: false, up: () => {} };
        const ready = new Promise<void>((resolve) => {
          link.up = resolve;
        });
        const close = async () => {
          link.closed = true;
        };
        this.links.set(`${address} ${url} ${dialHost}`, link);
        return { host: address, isUp: !link.closed, ready, close, [Symbol.asyncDispose]: close };
      },
    });
  }

  #expectLookup(): void {
    this.#asked = new Promise((resolve) => {
      this.#ask = resolve;
    });
  }

  /** Answers the lookup under way; resolves when the answer was acted on, which the next lookup shows. */
  async answer(found: string[] | Error): Promise<void> {
    await this.#asked;
    this.#expectLookup();
    this.#answer(found);
    await this.#asked;
  }

  get open(): string[] {
    return [...this.links].filter(([, { closed }]) => !closed).map(([name]) => name.split(' ')[0]!);
  }
}

describe('links to a name', () => {
  test('go to each address, by the certificate name and the port of the entry', async () => {
    const lookups = new Lookups();
    await lookups.answer(['192.0.2.1', '2001:db8::1', '192.0.2.1', '::ffff:192.0.2.1']);
    expect([...lookups.links.keys()]).toEqual([
      '192.0.2.1:443 https://derp.example.com/derp 192.0.2.1',
      '[2001:db8::1]:443 https://derp.example.com/derp 2001:db8::1',
    ]);
    await lookups.dns.close();
    expect(lookups.open).toEqual([]);
  });

  test('come with a record, and end when two lookups in a row lack it', async () => {
    const lookups = new Lookups();
    await lookups.answer(['192.0.2.1', '192.0.2.2']);
    await lookups.answer(['192.0.2.1', '192.0.2.3']);
    expect(lookups.open).toEqual(['192.0.2.1:443', '192.0.2.2:443', '192.0.2.3:443']);
    await lookups.answer(['192.0.2.1', '192.0.2.2']);
    await lookups.answer(['192.0.2.1', '192.0.2.3']);
    expect(lookups.open).toEqual(['192.0.2.1:443', '192.0.2.2:443', '192.0.2.3:443']);
    await lookups.answer(['192.0.2.1', '192.0.2.3']);
    expect(lookups.open).toEqual(['192.0.2.1:443', '192.0.2.3:443']);
    await lookups.answer([]);
    await lookups.answer([]);
    expect(lookups.open).toEqual([]);
    await lookups.dns.close();
  });

  test('stay as they are while lookups fail, which is logged once', async () => {
    const lookups = new Lookups();
    await lookups.answer(['192.0.2.1']);
    for (let i = 0; i < 3; i++) await lookups.answer(new Error('getaddrinfo EAI_AGAIN relays'));
    expect(lookups.open).toEqual(['192.0.2.1:443']);
    const warned = lookups.log.lines.filter((line) => line.includes('EAI_AGAIN'));
    expect(warned).toHaveLength(1);
    await lookups.dns.close();
  });

  test('are bounded, whatever DNS says', async () => {
    const lookups = new Lookups();
    await lookups.answer(Array.from({ length: 10_000 }, (_, i) => `10.1.${i >> 8}.${i & 255}`));
    expect(lookups.open).toHaveLength(MESH_DNS_MAX_ADDRESSES);
    await lookups.dns.close();
  });

  test('that hang in their lookup end at once when closed', async () => {
    const lookups = new Lookups();
    await lookups.dns.close();
    await expect(lookups.dns.ready).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
  });

  test('are ready when the first of them is', async () => {
    const lookups = new Lookups();
    await lookups.answer(['192.0.2.1', '192.0.2.2']);
    [...lookups.links.values()][1]!.up();
    await lookups.dns.ready;
    await lookups.dns.close();
  });
});

test('this relay itself gets no link', async () => {
  const self = new RegionRelay(1, '127.0.0.1');
  await self.start([], { mesh: { insecureHttp: true } });
  try {
    const alone = self.server.addMeshPeer(`http://dns:localhost:${self.port}`);
    await self.log.line(/mesh\("127.0.0.1:\d+"\): detected self-connect; ignoring host/);
    expect(alone.isUp).toBe(false);
    await alone.close();
    await expect(alone.ready).rejects.toMatchObject({ code: 'ERR_DERP_CLOSED' });
  } finally {
    await self.server.close();
  }
});

describe('a link that ended is dialled again', () => {
  const waits = (longest: number, random: number, until: number): number[] => {
    const redial = new Redial(longest, () => random);
    const found: number[] = [];
    let now = 0;
    while (now < until) {
      const wait = redial.next(now);
      found.push(Math.round(wait));
      now += wait;
    }
    return found;
  };

  test('after 250 ms, then at most 800 ms later each time for a minute, then up to 5 s', () => {
    const found = waits(5_000, 1, 120_000);
    expect(found.slice(0, 5)).toEqual([250, 375, 563, 800, 800]);
    expect(found.slice(0, 70).every((wait) => wait <= 800)).toBe(true);
    expect(found.at(-1)).toBe(5_000);
  });

  test('with jitter of a quarter', () => {
    expect(waits(5_000, 0, 1_000).slice(0, 3)).toEqual([188, 281, 422]);
  });

  test('never later than the longest wait says', () => {
    expect(waits(20, 1, 100)).toEqual([20, 20, 20, 20, 20]);
  });

  test('quickly again once it was up', () => {
    const redial = new Redial(5_000, () => 1);
    for (let now = 0; now < 120_000; now += 5_000) redial.next(now);
    expect(redial.next(200_000)).toBe(5_000);
    redial.recovered();
    expect(redial.next(300_000)).toBe(250);
  });
});
