import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { quickpickle } from 'quickpickle';
import { defineConfig } from 'vitest/config';
import { parse } from 'yaml';

// Long suites are named *.long.test.ts, or take a part of themselves with `LONG` or scenarios with @long;
// `npm run test:long` runs these alone.
const long = process.env.LLORCH_LONG_TESTS === '1';

function longFiles(): string[] {
  const isLong = (file: string) =>
    file.endsWith('.long.test.ts') ||
    file.endsWith('.features.test.ts') ||
    (file.endsWith('.test.ts') && readFileSync(file, 'utf8').includes("support/long.js'"));
  return readdirSync('test', { recursive: true, encoding: 'utf8' })
    .map((file) => join('test', file))
    .filter(isLong);
}

// `print`: the run tells what it showed of the requirements. `write`: it runs what shows them, and nothing else.
const tracing = process.env.LLORCH_TRACEABILITY ?? '';

function homes(): string[] {
  const requirements: unknown = parse(readFileSync('contracts/requirements.yaml', 'utf8'));
  const tests = Object.values(requirements as Record<string, { tests?: string[] }>).flatMap((one) => one.tests ?? []);
  const features = ['test/bdd/doors.features.test.ts', 'test/bdd/pools.features.test.ts'];
  return [...new Set([...features, ...tests.map((test) => test.split(' › ')[0] ?? '')])];
}

/** Their files share the modules of the whole program with the next ones in the same worker: loading it takes seconds. */
const SHARING = ['api', 'contract', 'core', 'e2e', 'engines', 'services', 'store', 'telemetry'];
const folders = readdirSync('test', { withFileTypes: true }).filter((entry) => entry.isDirectory());
const others = folders.map(({ name }) => name).filter((name) => !SHARING.includes(name));

function filesIn(names: readonly string[]): string[] {
  const inFolders = (file: string) => names.some((name) => file.startsWith(join('test', name, '/')));
  if (tracing === 'write') return homes().filter(inFolders);
  return long ? longFiles().filter(inFolders) : names.map((name) => `test/${name}/**/*.test.ts`);
}

export default defineConfig({
  // Features become tests where test/bdd imports them. A step waits for what it asks for, and says what it did not see.
  plugins: [quickpickle({ stepTimeout: 150_000, skipTags: long ? ['@skip'] : ['@skip', '@long'] })],
  // Vite would take graphql's ES build where Node, and so every library, takes the other one: two copies, two realms.
  resolve: { alias: [{ find: /^graphql$/, replacement: 'graphql/index.js' }] },
  test: {
    globalSetup: ['test/support/globalSetup.ts'],
    setupFiles: ['test/support/contractFetch.ts'],
    pool: 'forks',
    reporters: ['default', ...(tracing === '' ? [] : ['./test/bdd/reporter.ts'])],
    // Most tests wait for other processes most of the time, so more files than cores run at once.
    maxWorkers: 3,
    // Machines are slow at times; what is awaited comes, or the test fails late instead of by chance.
    expect: { poll: { timeout: 15_000 } },
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    exclude: ['**/node_modules/**', ...(long ? [] : ['test/**/*.long.test.ts'])],
    projects: [
      { extends: true, test: { name: 'parts', include: filesIn(others) } },
      { extends: true, test: { name: 'whole', include: filesIn(SHARING), isolate: false } },
    ],
  },
});
