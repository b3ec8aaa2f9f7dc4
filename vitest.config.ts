import { defineConfig } from 'vitest/config';

// Long suites are named *.long.test.ts and run by `npm run test:all` alone.
const long = process.env.LLORCH_LONG_TESTS === '1';

export default defineConfig({
  // Vite would take graphql's ES build where Node, and so every library, takes the other one: two copies, two realms.
  resolve: { alias: [{ find: /^graphql$/, replacement: 'graphql/index.js' }] },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['**/node_modules/**', ...(long ? [] : ['test/**/*.long.test.ts'])],
    globalSetup: ['test/support/globalSetup.ts'],
    pool: 'forks',
    // Most tests wait for other processes most of the time, so more files than cores run at once.
    maxWorkers: 3,
    // Machines are slow at times; what is awaited comes, or the test fails late instead of by chance.
    expect: { poll: { timeout: 15_000 } },
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
  },
});
