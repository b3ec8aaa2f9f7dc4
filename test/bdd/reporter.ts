/**
 * Tells at the end of a run what it showed of the requirements; LLORCH_TRACEABILITY=write has it written into the page, and
 * is an error where not all of them passed.
 */
import { writeFileSync } from 'node:fs';
import type { Reporter, TestModule } from 'vitest/node';
import { FEATURES, featureFiles, readFeature } from './gherkin.js';
import { REQUIREMENTS, readRequirements } from './requirements.js';
import { PAGE, pageOf, type Result, resultOf, summaryOf, type TestSeen } from './traceability.js';

const RESULTS: Readonly<Record<string, Result>> = { passed: 'passed', failed: 'failed' };

function testsOf(module: TestModule): TestSeen[] {
  return [...module.children.allTests()].map((test) => {
    const { scenario } = test.meta();
    const result = RESULTS[test.result().state] ?? 'not run';
    return { file: module.relativeModuleId, name: test.name, ...(scenario !== undefined && { scenario }), result };
  });
}

export default class TraceabilityReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const seen = modules.flatMap(testsOf);
    const requirements = readRequirements(REQUIREMENTS, featureFiles(FEATURES).map(readFeature));
    const results = new Map(requirements.flatMap(({ homes }) => homes.map((home) => [home, resultOf(home, seen)])));
    const of = (home: Parameters<typeof resultOf>[0]): Result => results.get(home) ?? 'not run';
    console.log(`\n${summaryOf(requirements, of)}\n`);
    if (process.env.LLORCH_TRACEABILITY !== 'write') return;
    writeFileSync(PAGE, pageOf(requirements, of));
    if ([...results.values()].some((result) => result !== 'passed')) process.exitCode = 1;
  }
}
