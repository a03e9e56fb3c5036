import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  // Tests import the package as its users do; outside node_modules a self reference needs this.
  resolve: { alias: [{ find: /^derplane$/, replacement: fileURLToPath(new URL('dist/index.js', import.meta.url)) }] },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/e2e/**'],
    globalSetup: ['test/support/global_setup.ts'],
    // What is built runs as built: Node loads dist, not vitest's transformer.
    server: { deps: { external: [/\/dist\//] } },
    pool: 'forks',
    // Each relay under test has threads of its own.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
