/** From each requirement to where it is shown: scenarios that carry its tag, and tests that are named for it. */
import { existsSync, readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';
import type { Feature, FeatureScenario } from './gherkin.js';

export const REQUIREMENTS = 'contracts/requirements.yaml';

const RequirementsSchema = z.record(
  z.string(),
  z.strictObject({
    must: z.string().min(1),
    /** `FILE › NAME`, the beginning of a test's name; the whole file where the name is left out. */
    tests: z.array(z.string()).default([]),
  }),
);

export interface Requirement {
  readonly id: string;
  readonly must: string;
  /** In the order of the features, then the tests. */
  readonly homes: readonly Home[];
}

export type Home = ScenarioHome | TestHome;

interface AnyHome {
  readonly file: string;
  readonly name: string;
  /** Left out by `npm test`. */
  readonly long: boolean;
}

interface ScenarioHome extends AnyHome {
  readonly kind: 'scenario';
  readonly feature: string;
  /** What its runs are called, one for each example of an outline. */
  readonly runs: readonly string[];
}

interface TestHome extends AnyHome {
  readonly kind: 'test';
}

export function readRequirements(file: string, features: readonly Feature[]): Requirement[] {
  const given = RequirementsSchema.parse(parse(readFileSync(file, 'utf8')));
  const scenarios = features.flatMap((feature) => feature.scenarios.map((scenario) => ({ feature, scenario })));
  return Object.entries(given).map(([id, { must, tests }]) => {
    const claiming = scenarios.filter(({ scenario }) => scenario.tags.includes(`@${id}`));
    return {
      id,
      must,
      homes: [...claiming.map(({ feature, scenario }) => scenarioHome(feature, scenario)), ...tests.map(testHome)],
    };
  });
}

function scenarioHome({ file, name: feature }: Feature, { name, runs, tags }: FeatureScenario): Home {
  return { kind: 'scenario', file, feature, name, runs, long: tags.includes('@long') };
}

function testHome(text: string): Home {
  const [file = '', name = ''] = text.split(' › ');
  return { kind: 'test', file, name, long: file.endsWith('.long.test.ts') };
}

/** Tags that say how a scenario is run; every other one is a requirement. */
const HOW = new Set(['@own', '@long']);

/**
 * What is wrong, in words; empty when each requirement has a home, each home is there, and each tag means something.
 * @param titlesOf the tests of a file, by their titles.
 */
export function flawsOf(
  requirements: readonly Requirement[],
  features: readonly Feature[],
  titlesOf: (file: string) => readonly string[],
): string[] {
  const known = new Set(requirements.map(({ id }) => `@${id}`));
  const unknown = features.flatMap(({ file, scenarios }) => {
    const tags = new Set(scenarios.flatMap((one) => one.tags).filter((tag) => !HOW.has(tag) && !known.has(tag)));
    return [...tags].map((tag) => `${file} carries ${tag}, which is no requirement`);
  });
  return [...requirements.flatMap((one) => flawsOfOne(one, titlesOf)), ...unknown, ...doublesOf(features)];
}

function flawsOfOne({ id, homes }: Requirement, titlesOf: (file: string) => readonly string[]): string[] {
  if (homes.length === 0) return [`${id} has no home: tag a scenario with @${id}, or name a test`];
  return homes.flatMap(({ kind, file, name }) => {
    if (kind === 'scenario') return [];
    if (!/^test\/.+\.test\.ts$/.test(file)) return [`${id} names what is no file of tests: ${file}`];
    // What a whole file has may come from a suite that it calls; whether it ran is told by its run.
    const isThere = name === '' ? existsSync(file) : titlesOf(file).some((title) => title.startsWith(name));
    return isThere ? [] : [`${id} names a test that is not there, or not run: ${file} › ${name}`];
  });
}

/** Results are told by the names of feature and scenario. */
function doublesOf(features: readonly Feature[]): string[] {
  const runs = features.flatMap(({ name, scenarios }) =>
    scenarios.flatMap((one) => one.runs.map((run) => `${name} › ${run}`)),
  );
  const doubles = runs.filter((run, at) => runs.indexOf(run) !== at);
  return [...new Set(doubles)].map((run) => `${run} is the name of several scenarios`);
}
