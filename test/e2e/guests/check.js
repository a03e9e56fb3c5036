/** `check.js [SERVER-NAME]`: asks the relay on this host for its consistency check, which loopback may; exits with 1 if it is not well. */
import { get } from 'node:https';

const [servername] = process.argv.slice(2);
get({ host: '127.0.0.1', port: 443, path: '/debug/check', servername, rejectUnauthorized: false }, (response) => {
  response.pipe(process.stdout);
  if (response.statusCode !== 200) process.exitCode = 1;
});
