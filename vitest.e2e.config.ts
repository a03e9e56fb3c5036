import { defineConfig } from 'vitest/config';

/** `npm run test:e2e`: real Tailscale nodes and their tools against the command, in network namespaces. */
export default defineConfig({
  test: {
    include: ['test/e2e/**/*.test.ts'],
    globalSetup: ['test/support/global_setup.ts', 'test/e2e/global_setup.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 180_000,
    hookTimeout: 180_000,
  },
});
