import { describe, expect, test } from 'vitest';
import { relayConfig } from '../dist/cli/config.js';
import { parseFlags } from '../dist/cli/flag_set.js';
import { FLAGS } from '../dist/cli/flags.js';
import { usage } from '../dist/cli/usage.js';
import { formatDuration, parseDuration } from '../dist/duration.js';
import { derplane } from './support/derplane.js';

const parse = (...args: string[]) => parseFlags(FLAGS, args);
const config = (args: string[], env = {}, isRoot = false) => relayConfig(parse(...args), env, isRoot);

describe('forms', () => {
  test.each([[['-a', ':1']], [['-a=:1']], [['--a', ':1']], [['--a=:1']], [['-a=:0', '-a', ':1']]])('%j', (args) => {
    expect(parse(...args).values.a).toBe(':1');
  });

  test.each([
    [['-dev'], true],
    [['--dev'], true],
    [['-dev=true'], true],
    [['-dev=1'], true],
    [['-dev=T'], true],
    [['-dev', '-dev=false'], false],
    [['-dev=0'], false],
    [['-dev=F'], false],
  ])('%j is %s', (args, value) => {
    expect(parse(...args).values.dev).toBe(value);
  });

  test('a boolean takes no value after a space', () => {
    expect(parse('-stun', 'false')).toMatchObject({ values: { stun: true }, rest: ['false'] });
  });

  test('values may be negative, empty, look like flags or have equal signs', () => {
    const { values } = parse('-http-port', '-1', '-a', '', '-home', '-dev', '-c=a=b');
    expect(values).toMatchObject({ 'http-port': -1, a: '', home: '-dev', c: 'a=b', dev: false });
  });

  test.each([
    [['-dev', '--', '-stun=false'], ['-stun=false']],
    [
      ['-dev', 'x', '-stun=false'],
      ['x', '-stun=false'],
    ],
    [
      ['-dev', '-', '-stun=false'],
      ['-', '-stun=false'],
    ],
  ])('%j ends at the first that is no flag', (args, rest) => {
    expect(parse(...args)).toMatchObject({ values: { dev: true, stun: true }, rest });
  });

  test.each([
    ['12', 12],
    ['-12', -12],
    ['+12', 12],
    ['0x10', 16],
    ['-0b11', -3],
    ['0o17', 15],
    ['017', 15],
    ['1_000', 1000],
  ])('the integer %s is %s', (text, value) => {
    expect(parse('-http-port', text).values['http-port']).toBe(value);
  });

  test.each([
    ['+Inf', Infinity],
    ['inf', Infinity],
    ['1e3', 1000],
    ['.5', 0.5],
    ['2.', 2],
  ])('the number %s is %s', (text, value) => {
    expect(parse('-accept-connection-limit', text).values['accept-connection-limit']).toBe(value);
  });

  test.each([
    ['10m', 600_000],
    ['1m30s', 90_000],
    ['500ms', 500],
    ['1.5h', 5_400_000],
    ['.5s', 500],
    ['-1s', -1_000],
    ['1µs', 0.001],
    ['0', 0],
    ['2h0m1s', 7_201_000],
  ])('the duration %s is %s ms', (text, value) => {
    expect(parseDuration(text)).toBeCloseTo(value, 9);
  });

  test.each(['', '-', '10', '1 s', 's', '1s2', '1d', '.s', '1s ', 'é', '1e3s'])('%j is no duration', (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });

  test.each(['10m0s', '15s', '2h0m5s', '500ms', '0s'])('durations are written as %s', (text) => {
    expect(formatDuration(parseDuration(text)!)).toBe(text);
  });
});

describe('wrong flags', () => {
  test.each([
    [['-nope'], 'flag provided but not defined: -nope'],
    [['--nope=1'], 'flag provided but not defined: -nope'],
    [['-__proto__', 'x'], 'flag provided but not defined: -__proto__'],
    [['-=x'], 'bad flag syntax: -=x'],
    [['---a'], 'bad flag syntax: ---a'],
    [['-a'], 'flag needs an argument: -a'],
    [['-dev=maybe'], 'invalid boolean value "maybe" for -dev: parse error'],
    [['-http-port', 'x'], 'invalid value "x" for flag -http-port: parse error'],
    [['-http-port', '1.5'], 'invalid value "1.5" for flag -http-port: parse error'],
    [['-http-port', '99999999999999999999'], 'invalid value "99999999999999999999" for flag -http-port: parse error'],
    [['-tcp-write-timeout', '2'], 'invalid value "2" for flag -tcp-write-timeout: parse error'],
    [['-tcp-write-timeout', '-2s'], 'invalid value "-2s" for flag -tcp-write-timeout: must be a duration from 0s to'],
    [
      ['-tcp-keepalive-time', '10h'],
      'invalid value "10h" for flag -tcp-keepalive-time: must be a duration from 1s to 9h6m7s',
    ],
    [['-shards', '64'], 'invalid value "64" for flag -shards: must be an integer from 1 to 63, or 0'],
    [['-shards', 'x', '-shards', '1'], 'invalid value "x" for flag -shards: parse error'],
    [['-queue-depth', '0'], 'invalid value "0" for flag -queue-depth: must be an integer from 1 to 65536'],
    [['-log-format', 'xml'], 'invalid value "xml" for flag -log-format: must be text, json'],
    [['-log-level', 'loud'], 'invalid value "loud" for flag -log-level: must be debug, info, warn, error'],
    [['-accept-connection-limit', 'x'], 'invalid value "x" for flag -accept-connection-limit: parse error'],
  ])('%j: %s', (args, message) => {
    expect(() => parse(...args)).toThrow(message);
  });

  test.each([[['-nope']], [['-shards', 'many']], [['-dev', 'stray']], [['demo', '-nope']]])(
    '%j ends with the usage and exit code 2',
    async (args) => {
      const { code, stdout, stderr } = await derplane(args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toMatch(/^(?:flag provided|invalid value|unexpected argument).*\nUsage of derplane/);
    },
  );
});

describe('help and version', () => {
  test.each(['-h', '-help', '--help'])('%s prints every flag on stderr and exits 0', async (flag) => {
    const { code, stdout, stderr } = await derplane([flag]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
    for (const name of Object.keys(FLAGS)) expect(stderr).toMatch(new RegExp(`^ {2}-${name}(?: \\S+)?$`, 'm'));
    expect(stderr).toContain('(default 10m0s)');
    expect(stderr).toContain('(default 9223372036854775807)');
    expect(stderr).toContain('(default +Inf)');
    expect(stderr).toContain('(default ":443")');
  });

  test('demo has a help of its own', async () => {
    const { code, stderr } = await derplane(['demo', '-h']);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^Usage of derplane demo:\n {2}-cert-name name\n/);
  });

  test('docs/cli.md has the usage as it is (npx vitest run with -u writes it)', async () => {
    const document = `# The command line

\`derplane [flags]\` runs a relay. \`derplane demo\` sends packets between two clients through a running one.

Flags have the names, defaults and meaning of Tailscale's \`derper\`, and its style: \`-flag v\`, \`-flag=v\`, \`--flag v\`,
\`--flag=v\`; booleans \`-stun\`, \`-stun=false\`; durations \`10m\`, \`1m30s\`, \`500ms\`.

| exit code | meaning |
|---|---|
| 0 | ended by SIGTERM or SIGINT, \`-version\`, \`-help\`; \`demo\`: every packet came back |
| 1 | cannot start (port in use, unreadable key file, a flag that cannot be served), or failed; one line says why |
| 2 | wrong flag, value or argument; the usage follows |

A second SIGTERM or SIGINT ends the program at once. SIGHUP reloads the files of \`-rate-config\` and
\`-allow-keys\`, and the certificate of \`-certmode manual\`. The last two are also read again by themselves when their files change.

\`TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH\` gives the queue depth where \`-queue-depth\` is not given. With \`-dev\` the mesh key comes
from \`TAILSCALE_DERPER_MESH_KEY\`, and only then.

## derplane

\`\`\`text
${(await derplane(['-help'])).stderr}\`\`\`

## derplane demo

\`\`\`text
${(await derplane(['demo', '-help'])).stderr}\`\`\`
`;
    await expect(document).toMatchFileSnapshot('../docs/cli.md');
  });

  test('every flag of derper and of ours has help, and works', () => {
    const text = usage('derplane', FLAGS);
    for (const name of Object.keys(FLAGS)) expect(text).toMatch(new RegExp(`^  -${name}\\b.*\\n\\s+\\S`, 'm'));
    expect(text).not.toContain('not available yet');
  });

  test('-version prints the version alone', async () => {
    const { code, stdout, stderr } = await derplane(['-version']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('what the flags ask for', () => {
  test('-dev means loopback port 3340 and no key file, whatever -a says', () => {
    const { address, keyFile } = config(['-dev', '-a', ':443', '-c', '/x']);
    expect({ address, keyFile }).toEqual({
      address: { flag: '-dev', host: '127.0.0.1', port: 3340 },
      keyFile: undefined,
    });
  });

  test('only root has a default for -c', () => {
    expect(config(['-a', ':80'], {}, true).keyFile).toBe('/var/lib/derper/derper.key');
    expect(config(['-a', ':80', '-c', '/x']).keyFile).toBe('/x');
    expect(() => config(['-a', ':80'])).toThrow('derper: -c <config path> not specified');
  });

  test('tuning reaches the server', () => {
    const args = [
      '-dev',
      '-shards',
      '3',
      '-handshake-threads',
      '2',
      '-handshakes-per-source',
      '5',
      '-ring-bytes',
      '1048576',
      '-tcp-write-timeout',
      '3s',
    ];
    const { server } = config([...args, '-queue-depth', '7']);
    expect(server).toMatchObject({
      shards: 3,
      handshake: { threads: 2, maxPendingPerSource: 5 },
      timeouts: { write: 3000 },
      queues: { depth: 7, ringBytes: 1048576 },
    });
    const { tcpKeepaliveTime, tcpUserTimeout } = config([
      '-dev',
      '-tcp-keepalive-time',
      '1m',
      '-tcp-user-timeout',
      '0',
    ]);
    expect({ tcpKeepaliveTime, tcpUserTimeout }).toEqual({ tcpKeepaliveTime: 60_000, tcpUserTimeout: 0 });
  });

  test('the default numbers of threads and handshakes are left to the server', () => {
    expect(Object.keys(config(['-dev']).server)).not.toContain('shards');
    expect(config(['-dev']).server.handshake).toEqual({});
  });

  test.each([
    [[], '7', 7],
    [[], '', 32],
    [[], '0', 32],
    [[], '-3', 32],
    [['-queue-depth', '5'], '7', 5],
  ])('queue depth of %j with the variable %j is %i', (args, text, depth) => {
    const env = { TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH: text };
    expect(config(['-dev', ...args], env).server.queues?.depth).toBe(depth);
  });

  test.each(['x', '1.5', '70000'])('the queue depth variable %j is refused', (text) => {
    const env = { TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH: text };
    expect(() => config(['-dev'], env)).toThrow(
      `invalid integer environment variable TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH: "${text}" must be`,
    );
  });

  test.each(['-accept-connection-burst=1', '-secrets-path-prefix=x', '-secrets-cache-dir=x'])(
    '%s says how another flag works, so it is accepted without that one',
    (flag) => {
      expect(config(['-dev', '-stun=false', flag]).warnings).toEqual([]);
    },
  );

  test("the defaults of derper's flags are accepted", () => {
    const args = ['-accept-connection-limit=+Inf', '-trust-proxy='];
    expect(config(['-dev', ...args, '-accept-connection-burst=9223372036854775807']).warnings).toEqual([]);
  });

  test.each([
    [['-a', ':8443', '-certmode=gcp', '-hostname=derp.example.com'], '-certmode gcp serves TLS on port 443 only'],
    [['-a', '127.0.0.1:3340', '-hostname=derp.example.com'], 'plain HTTP on 127.0.0.1:3340'],
  ])('a relay that should serve TLS and does not says so: %j', (args, text) => {
    expect(config([...args, '-c', 'x', '-stun=false']).warnings).toEqual([expect.stringContaining(text)]);
  });

  test.each([
    [['-a', ':3340']],
    [['-a', ':443', '-hostname=derp.example.com', '-certdir=x']],
    [['-a', ':8443', '-certmode=manual', '-hostname=derp.example.com', '-certdir=x']],
    [['-dev', '-hostname=derp.example.com']],
  ])('one that serves what it should does not: %j', (args) => {
    expect(config([...args, '-c', 'x', '-stun=false']).warnings).toEqual([]);
  });

  test('what concerns TLS alone is accepted where none is served, with a warning', () => {
    const args = [
      '-certmode=letsencrypt',
      '-certdir=x',
      '-hostname=x',
      '-acme-email=x',
      '-http-port=80',
      '-stun-port=1',
    ];
    expect(config(['-a', ':80', '-c', 'x', '-stun=false', ...args]).warnings).toEqual([
      expect.stringMatching(
        /^-certmode letsencrypt serves TLS on port 443 only, and this is plain HTTP on :80: nodes need TLS/,
      ),
    ]);
  });

  test('-drain-time and -rate-config reach the relay', () => {
    expect(config(['-dev'])).toMatchObject({ drainTime: 1_500, rateConfig: undefined });
    expect(config(['-dev', '-drain-time=1m', '-rate-config=/x'])).toMatchObject({
      drainTime: 60_000,
      rateConfig: '/x',
    });
  });

  test('-ace gets one warning', () => {
    expect(config(['-dev', '-ace']).warnings).toEqual([expect.stringContaining('-ace')]);
  });

  test.each([
    [[], 'flag -dev, 127.0.0.1:3478'],
    [['-stun-port=5'], 'flag -dev, 127.0.0.1:5'],
    [['-stun-addr=192.0.2.1'], 'flag -stun-addr, 192.0.2.1:3478'],
    [['-stun-addr=192.0.2.1', '-stun-port=5'], 'flag -stun-addr, 192.0.2.1:5'],
    [['-stun-addr=192.0.2.1:7'], 'flag -stun-addr, 192.0.2.1:7'],
    [['-stun-addr=2001:db8::1'], 'flag -stun-addr, 2001:db8::1:3478'],
    [['-stun-addr=[2001:db8::1]'], 'flag -stun-addr, 2001:db8::1:3478'],
    [['-stun-addr=[2001:db8::1]:7'], 'flag -stun-addr, 2001:db8::1:7'],
    [['-stun-addr=:7'], 'flag -stun-addr, :7'],
  ])('STUN with %j listens at: %s', (args, expected) => {
    const { flag, host, port } = config(['-dev', ...args]).stun!.address;
    expect(`flag ${flag === '-stun-port' ? '-dev' : flag}, ${host}:${port}`).toBe(expected);
  });

  test('-stun=false serves no STUN, -stun-rate bounds its answers', () => {
    expect(config(['-dev', '-stun=false']).stun).toBeUndefined();
    expect(config(['-dev']).stun?.answersPerSecond).toBe(10_000);
    expect(config(['-dev', '-stun-rate=0']).stun?.answersPerSecond).toBe(0);
  });

  test('-stun-addr that is no address, or names a port beside -stun-port, is refused', () => {
    expect(() => config(['-dev', '-stun-addr=x y:1'])).toThrow('-stun-addr "x y:1": invalid server address');
    expect(() => config(['-dev', '-stun-addr=:7', '-stun-port=7'])).toThrow('names a port, and so does -stun-port');
  });

  test.each(['doctor', 'top'])('the command %s says that it is not there yet', async (command) => {
    const { code, stderr } = await derplane([command, 'x']);
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^derplane: derplane \\S+ has no command ${command} yet\\n$`));
  });
});
