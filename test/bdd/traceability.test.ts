/** The specification as a whole: every requirement has a home, every step a meaning, and the page tells what is there. */
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { chosenFeatures, FEATURES } from './features.js';
import { featureFiles, problemsOf, readFeature } from './gherkin.js';
import { definedSteps } from './step.js';
import { flawsOf, pageOf, readRequirements } from './traceability.js';

const features = featureFiles(FEATURES).map(readFeature);
const requirements = readRequirements('contracts/requirements.yaml', features);

describe('the requirements', () => {
  it('have homes that are there', () => {
    expect(requirements.length).toBeGreaterThan(100);
    expect(flawsOf(requirements, features)).toEqual([]);
  });

  it('are told with their homes in contracts/traceability.md, as it stands', async () => {
    await expect(pageOf(requirements)).toMatchFileSnapshot(resolve('contracts/traceability.md'));
  });

  it('without a home, or with one that is not there, are found', () => {
    const scenario = { name: 'one', tags: ['@B-2', '@C-3', '@Z-9'] };
    const feature = { file: 'x.feature', name: 'x', scenarios: [scenario], steps: [] };
    const requirement = (id: string, more: object) => ({ id, must: 'm', awaits: null, homes: [], ...more });
    const home = { kind: 'test' as const, file: 'test/core/queue.test.ts', name: 'is nowhere', long: false };
    const flawed = [
      requirement('A-1', {}),
      requirement('B-2', { homes: [home], awaits: 'a release' }),
      requirement('C-3', { homes: [{ ...home, name: 'a queue' }] }),
    ];
    expect(flawsOf(flawed, [feature])).toEqual([
      'A-1 has no home: tag a scenario with @A-1, or name a test',
      'B-2 has a home and still awaits a release: remove that',
      `B-2 names a test that is not there: ${home.file} › is nowhere`,
      'x.feature carries @Z-9, which is no requirement',
    ]);
  });
});

describe('the steps', () => {
  it('are all defined once, and all used', () => {
    const steps = features.flatMap((feature) => feature.steps);
    expect(steps.length).toBeGreaterThan(300);
    expect(problemsOf(steps, definedSteps())).toEqual({ undefined: [], ambiguous: [], unused: [] });
  });

  it('that are undefined, ambiguous or unused are found', () => {
    const { steps } = readFeature('test/bdd/fixtures/illSteps.feature');
    const definitions = [/^a thing "\w+"$/, /^a thing "(\w+)"$/, /^two (?:red|green) things$/, /^nobody says this$/];
    expect(problemsOf(steps, definitions)).toEqual({
      undefined: ['test/bdd/fixtures/illSteps.feature:6 a step that nobody wrote'],
      ambiguous: ['test/bdd/fixtures/illSteps.feature:5 a thing "x"'],
      unused: ['/^nobody says this$/'],
    });
  });
});

describe('a run that is narrowed', () => {
  const preload = 'test/features/pool-managerd/preload.feature';

  it('takes a file, or all of a folder, however it is written', () => {
    expect(chosenFeatures(preload)).toEqual([preload]);
    expect(chosenFeatures(resolve(preload))).toEqual([preload]);
    const pools = chosenFeatures('./test/features/pool-managerd/');
    expect(pools).toContain(preload);
    expect(pools.length).toBeLessThan(chosenFeatures('').length);
  });

  it.each(['test/features/nowhere', 'test/bdd/step.ts'])('is refused where it would run nothing: %s', (path) => {
    expect(() => chosenFeatures(path)).toThrow('is no feature, and no folder with one');
  });
});
