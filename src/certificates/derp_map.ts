/** What has to stand in a DERP map for clients to use a relay that they know by an IP address. */
import { isIPv6 } from 'node:net';

export interface DerpNode {
  ip: string;
  /** As `CertName` has it: `sha256-raw:<64 hex>`. Undefined for a certificate that an authority issued, whose pin nodes refuse. */
  pin: string | undefined;
  port: number;
  /** -1 where no STUN is served. */
  stunPort: number;
  /** Whether plain HTTP is served on port 80, where clients look for captive portals. */
  port80: boolean;
}

/** Ids from 900 to 999 are set aside for the regions of users. */
const REGION_ID = 900;
const NAME = 'custom';
const HTTPS_PORT = 443;

/** One line of JSON, as derper prints it: the same members in the same order. */
export function derpNodeHint({ ip, pin }: Pick<DerpNode, 'ip' | 'pin'>): string {
  return JSON.stringify({ Name: NAME, RegionID: REGION_ID, HostName: ip, CertName: pin });
}

/** The map for Tailscale's policy file, its member `derpMap`: JSON, indented, without the braces around it. */
export function tailscaleDerpMap(node: DerpNode): string {
  const region = { RegionID: REGION_ID, RegionCode: NAME, RegionName: NAME, Nodes: [members(node)] };
  return `"derpMap": ${JSON.stringify({ Regions: { [REGION_ID]: region } }, null, 2)}`;
}

/** The map as a file for headscale's `derp.paths`: YAML. */
export function headscaleDerpMap(node: DerpNode): string {
  // JSON strings are YAML strings.
  const lines = Object.entries(members(node))
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name.toLowerCase()}: ${JSON.stringify(value)}`);
  return `regions:
  ${REGION_ID}:
    regionid: ${REGION_ID}
    regioncode: ${NAME}
    regionname: ${NAME}
    nodes:
      - ${lines.join('\n        ')}
`;
}

/** Of a DERPNode; what has its default is left out. */
function members({ ip, pin, port, stunPort, port80 }: DerpNode): object {
  const v6 = isIPv6(ip);
  return {
    Name: NAME,
    RegionID: REGION_ID,
    HostName: ip,
    CertName: pin,
    // "none" keeps clients from looking the address up as a name of the other family.
    IPv4: v6 ? 'none' : ip,
    IPv6: v6 ? ip : 'none',
    STUNPort: stunPort,
    ...(port !== HTTPS_PORT && { DERPPort: port }),
    ...(port80 && { CanPort80: true }),
  };
}
