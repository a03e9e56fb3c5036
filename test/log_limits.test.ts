/** Strangers cannot fill the log, and a logger that fails cannot end the relay. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { type Logger, PrivateKey, Server } from 'derplane';
import { describe, expect, test } from 'vitest';
import { AcceptTrouble } from '../dist/accept_trouble.js';
import { DEBUG_RATE, LimitedLog, LineBudget, OPERATOR_RATE } from '../dist/log_limit.js';
import { expectRelay } from './support/exchange.js';
import { LogWatch } from './support/log_watch.js';

describe('lines of one kind', () => {
  test.each([OPERATOR_RATE, DEBUG_RATE])(
    'come in a burst, then at intervals, and tell what was left out: %j',
    (rate) => {
      const budget = new LineBudget(rate);
      const burst = Array.from({ length: rate.burst + 3 }, () => budget.take(0));
      expect(burst).toEqual([...Array(rate.burst).fill(0), undefined, undefined, undefined]);
      expect(budget.take(rate.interval)).toBe(3);
      expect(budget.take(rate.interval)).toBe(undefined);
      expect(budget.take(rate.interval * 2)).toBe(1);
      expect(budget.take(rate.interval * 1e6)).toBe(0);
    },
  );

  test('are bounded apart from those of other kinds and levels', () => {
    let now = 0;
    const logger = new LogWatch();
    const log = new LimitedLog(logger, false, () => now);
    for (let n = 0; n < 1e5; n++) log.log('warn', 'a', {}, 'first');
    log.log('warn', 'b', {}, 'second');
    log.log('debug', 'a', {}, 'third');
    now += OPERATOR_RATE.interval;
    log.log('warn', 'a', {}, 'first');
    expect(logger.lines).toEqual([
      ...Array(OPERATOR_RATE.burst).fill('WARN first'),
      'WARN second',
      'DEBUG third',
      `WARN first (${1e5 - OPERATOR_RATE.burst} similar lines suppressed)`,
    ]);
  });
});

test('a listener that cannot accept tells so once, and once when it can again', async () => {
  const logger = new LogWatch();
  const trouble = new AcceptTrouble(logger, 'accept', 'connections wait', 200);
  for (let n = 0; n < 50; n++) trouble.failed('EMFILE');
  // Unreferenced timers alone would not keep this test's thread.
  const alive = setInterval(() => {}, 1_000);
  await logger.line(/accepts again/);
  clearInterval(alive);
  expect(logger.lines).toEqual([
    'ERROR derper: accept: EMFILE: the process is out of file descriptors, raise its limit (LimitNOFILE); connections wait',
    'INFO derper: accept: accepts again, after 50 failures (EMFILE) over 0 s',
  ]);
  trouble.failed('EMFILE');
  trouble.close();
  expect(logger.lines.filter((line) => line.startsWith('ERROR'))).toHaveLength(2);
});

describe('a logger that', () => {
  const fails = (fail: () => unknown): Logger => ({ debug: fail, info: fail, warn: fail, error: fail }) as Logger;
  const error = new Error('out of ink');

  test.each([
    ['throws', () => fails(() => expect.fail('out of ink'))],
    ['rejects', () => fails(() => Promise.reject(error))],
  ])('%s costs lines only, and a warning tells', async (_, logger) => {
    const warned = once(process, 'warning');
    const server = new Server(PrivateKey.generate(), { shards: 1, logger: logger(), logClients: true });
    const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
    await expectRelay(`http://127.0.0.1:${port}/derp`);
    const malformed = connect(port, '127.0.0.1').end('nonsense\r\n\r\n');
    malformed.resume();
    await once(malformed, 'close');
    expect(((await warned) as [Error])[0].message).toMatch(/^derplane: the logger fails, lines lost: 1: /);
    await expectRelay(`http://127.0.0.1:${port}/derp`);
    expect(server.failure).toBe(undefined);
    await server.close();
  });
});
