import { createServer } from 'node:http';
import { afterEach, expect, test } from 'vitest';
import { type HttpListener, listenHttp } from '../dist/cli/http_listener.js';
import { LogWatch } from './support/log_watch.js';

let listener: HttpListener | undefined;
afterEach(() => listener?.close());

test('connections that cannot be accepted are told once, and do not end the program', async () => {
  const log = new LogWatch();
  const server = createServer((_request, response) => response.end('served'));
  listener = await listenHttp(server, { flag: '-a', host: '127.0.0.1', port: 0 }, log);
  // What Node does when the system refuses to accept.
  for (let i = 0; i < 3; i++) server.emit('error', Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' }));
  expect(log.lines).toEqual([
    `ERROR derper: accept on 127.0.0.1:${listener.address.port}: EMFILE: the process is out of file descriptors, raise its limit (LimitNOFILE); connections are lost`,
  ]);
  expect(await (await fetch(`http://127.0.0.1:${listener.address.port}/`)).text()).toBe('served');
});
