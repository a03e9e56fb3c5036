/** How much CPU an answer of STUN costs: the relay's command with nothing but STUN, and requests from the load. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { runLoad } from './load.js';
import { type Figures, type MeasureOptions, perSecond, shares, WARMUP } from './measure.js';
import { freePort, type Peer, START_TIMEOUT } from './peers.js';
import { spawnPinned, stop, tailOfErrors } from './process.js';
import type { Stun } from './scenarios.js';

/** Milliseconds between two looks at the log. */
const LOOK_INTERVAL = 20;
/** What derplane and derper log once STUN is served. */
const SERVED = 'STUN server listening on';

export async function runStun({ window }: Stun, peer: Peer, options: MeasureOptions): Promise<Figures> {
  const [port, stunPort] = [await freePort(), await freeUdpPort()];
  const [program, relayArgs] = peer.command!(port, false);
  const args = [...relayArgs, '-derp=false', '-stun', '-stun-port', String(stunPort), ...(peer.stunFlags ?? [])];
  const server = spawnPinned(options.relayCores, program, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    // derper gets one thread for its one core, as in the other scenarios; derplane ignores it.
    env: { ...process.env, GOMAXPROCS: '1' },
  });
  const log = tailOfErrors(server);
  try {
    await served(() => server.exitCode, log);
    const duration = options.seconds * 1000;
    const load = { mode: 'stun', port: stunPort, relayPid: server.pid!, window, warmup: WARMUP, duration } as const;
    const result = await runLoad(load, options.loadCores);
    return {
      cost: result.relayCpuNanos / 1000 / result.answers,
      perSecond: perSecond(result.answers, result.durationNanos),
      lost: result.lost,
      ...shares(result),
      faults: result.wrong > 0 ? [`${result.wrong} wrong answers`] : [],
    };
  } finally {
    await stop(server);
  }
}

async function served(exitCode: () => number | null, log: () => string): Promise<void> {
  for (const deadline = Date.now() + START_TIMEOUT; !log().includes(SERVED); await delay(LOOK_INTERVAL)) {
    if (exitCode() !== null) throw new Error(`STUN: the relay ended with exit code ${exitCode()}: ${log()}`);
    if (Date.now() > deadline) throw new Error(`STUN: not served after ${START_TIMEOUT} ms: ${log()}`);
  }
}

async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}
