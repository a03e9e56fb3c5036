import { fileURLToPath } from 'node:url';
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';
import ShortReporter from './test/support/short_reporter.js';

// Tests import the package as its users do; outside node_modules a self reference needs this.
const alias = [{ find: /^derplane$/, replacement: fileURLToPath(new URL('dist/index.js', import.meta.url)) }];

function project(test: TestProjectInlineConfiguration['test']): TestProjectInlineConfiguration {
  return {
    resolve: { alias },
    test: {
      // What is built runs as built: Node loads dist, not vitest's transformer.
      server: { deps: { external: [/\/dist\//] } },
      pool: 'forks',
      // Each relay under test has threads of its own.
      maxWorkers: 2,
      testTimeout: 60_000,
      hookTimeout: 120_000,
      ...test,
    },
  };
}

/** Other programs see the same bytes from every version of Node, so CI runs these tests on one of them. */
const withoutInterop = process.env['DERPLANE_TEST_INTEROP'] === '0' ? ['test/interop/**'] : [];

/** Short on a terminal; elsewhere every file and every slow test. */
const onTerminal = process.stdout.isTTY && process.env['CI'] !== 'true';

export default defineConfig({
  test: {
    reporters: [onTerminal ? new ShortReporter() : 'default'],
    globalSetup: ['test/support/global_setup.ts'],
    projects: [
      project({ name: 'plain', include: ['test/**/*.test.ts'], exclude: ['test/e2e/**', ...withoutInterop] }),
      // What depends on how bytes come and go, once more with every relay of test/support/relay.ts behind TLS.
      project({
        name: 'tls',
        include: ['relay_*', 'handshake_*', 'limits*', 'presence', 'watch*', 'duplicates_*', 'peer_gone_*'].map(
          (name) => `test/${name}.test.ts`,
        ),
        env: { DERPLANE_TEST_TLS: '1' },
      }),
    ],
  },
});
