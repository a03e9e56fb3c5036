import { describe, expect, test } from 'vitest';
import { type DerpNode, derpNodeHint, headscaleDerpMap, tailscaleDerpMap } from '../dist/certificates/derp_map.js';

const PIN = `sha256-raw:${'0123456789abcdef'.repeat(4)}`;
const NODE: DerpNode = { ip: '192.0.2.1', pin: PIN, port: 443, stunPort: 3478, port80: true };

const tailscaleNode = (node: DerpNode) => JSON.parse(`{${tailscaleDerpMap(node)}}`).derpMap.Regions['900'].Nodes[0];

/** Members of the node in headscale's form; the values are JSON, which YAML is a superset of. */
function headscaleNode(node: DerpNode): object {
  const yaml = headscaleDerpMap(node);
  const [, members] = yaml.match(/^regions:\n {2}900:\n(?: {4}\w+: \w+\n)+ {4}nodes:\n {6}- ([\s\S]*)$/)!;
  return Object.fromEntries(
    members!
      .trimEnd()
      .split('\n        ')
      .map((line) => [line.slice(0, line.indexOf(': ')), JSON.parse(line.slice(line.indexOf(': ') + 2))]),
  );
}

test('the hint has the members of derper in their order', () => {
  expect(derpNodeHint(NODE)).toBe(`{"Name":"custom","RegionID":900,"HostName":"192.0.2.1","CertName":"${PIN}"}`);
});

describe('a map', () => {
  test('has no CertName where an authority issued the certificate', () => {
    const { CertName: _, ...rest } = tailscaleNode(NODE);
    const node = { ...NODE, pin: undefined };
    expect(tailscaleNode(node)).toEqual(rest);
    expect(headscaleNode(node)).not.toHaveProperty('certname');
    expect(derpNodeHint(node)).toBe('{"Name":"custom","RegionID":900,"HostName":"192.0.2.1"}');
  });

  test('for Tailscale has a region with the node', () => {
    expect(JSON.parse(`{${tailscaleDerpMap(NODE)}}`)).toEqual({
      derpMap: {
        Regions: {
          900: {
            RegionID: 900,
            RegionCode: 'custom',
            RegionName: 'custom',
            Nodes: [
              {
                Name: 'custom',
                RegionID: 900,
                HostName: '192.0.2.1',
                CertName: PIN,
                IPv4: '192.0.2.1',
                IPv6: 'none',
                STUNPort: 3478,
                CanPort80: true,
              },
            ],
          },
        },
      },
    });
  });

  test('names another port than 443, no STUN where there is none, and no port 80 where it is not served', () => {
    expect(tailscaleNode({ ...NODE, port: 8443, stunPort: -1, port80: false })).toEqual({
      Name: 'custom',
      RegionID: 900,
      HostName: '192.0.2.1',
      CertName: PIN,
      IPv4: '192.0.2.1',
      IPv6: 'none',
      STUNPort: -1,
      DERPPort: 8443,
    });
  });

  test('has an IPv6 address as such', () => {
    expect(tailscaleNode({ ...NODE, ip: '2001:db8::1' })).toMatchObject({ IPv4: 'none', IPv6: '2001:db8::1' });
  });

  test('for headscale says the same by its names', () => {
    for (const node of [NODE, { ...NODE, ip: '2001:db8::1', port: 8443, stunPort: -1, port80: false }]) {
      const lower = Object.entries(tailscaleNode(node)).map(([name, value]) => [name.toLowerCase(), value]);
      expect(headscaleNode(node)).toEqual(Object.fromEntries(lower));
    }
  });
});
