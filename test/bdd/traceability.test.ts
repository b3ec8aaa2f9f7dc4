/** The specification as a whole: every requirement has a home, every step a meaning, and the page tells what is there. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { chosenFeatures } from './features.js';
import { FEATURES, featureFiles, featureOf, problemsOf, readFeature } from './gherkin.js';
import { proofFolder } from './proof.js';
import { flawsOf, REQUIREMENTS, readRequirements } from './requirements.js';
import { definedSteps } from './step.js';
import { testTitles } from './testTitles.js';
import { PAGE, pageOf, resultOf, summaryOf, type TestSeen } from './traceability.js';

/** One that is taken out, or added, is counted here too. */
const COUNT = 153;

const features = featureFiles(FEATURES).map(readFeature);
const requirements = readRequirements(REQUIREMENTS, features);

describe('the requirements', () => {
  it('are all there, and have homes that are there', () => {
    expect(requirements).toHaveLength(COUNT);
    expect(flawsOf(requirements, features, testTitles)).toEqual([]);
  });

  it('are told in contracts/traceability.md as they stand, by a run in which all homes passed', () => {
    const found = readFileSync(PAGE, 'utf8').split('\n');
    const wanted = pageOf(requirements, () => 'passed').split('\n');
    // Few lines of many differ.
    const stale = {
      missing: wanted.filter((line) => !found.includes(line)),
      odd: found.filter((line) => !wanted.includes(line)),
    };
    expect(stale, 'npm run traceability writes it anew').toEqual({ missing: [], odd: [] });
    expect(found).toEqual(wanted);
  });

  it('have proofs that do not lie on each other', () => {
    const folders = features.flatMap(({ name, scenarios }) =>
      scenarios.flatMap(({ runs }) => runs.map((run) => proofFolder(name, run))),
    );
    expect(folders.filter((folder, at) => folders.indexOf(folder) !== at)).toEqual([]);
  });

  it('without a home, or with one that is not there, are found, and so are tags that mean nothing', () => {
    const scenario = { name: 'one', runs: ['one'], tags: ['@B-2', '@own', '@Z-9', '@skip'] };
    const feature = { file: 'x.feature', name: 'x', scenarios: [scenario, { ...scenario, tags: [] }], steps: [] };
    const requirement = (id: string, more: object) => ({ id, must: 'm', homes: [], ...more });
    const home = { kind: 'test' as const, file: 'test/core/queue.test.ts', name: 'is nowhere', long: false };
    const flawed = [
      requirement('A-1', {}),
      requirement('B-2', { homes: [home, { ...home, name: 'never exceeds' }] }),
      requirement('C-3', { homes: [{ ...home, file: 'bench/main.mjs', name: '' }] }),
    ];
    expect(flawsOf(flawed, [feature], testTitles)).toEqual([
      'A-1 has no home: tag a scenario with @A-1, or name a test',
      `B-2 names a test that is not there, or not run: ${home.file} › is nowhere`,
      'C-3 names what is no file of tests: bench/main.mjs',
      'x.feature carries @Z-9, which is no requirement',
      'x.feature carries @skip, which is no requirement',
      'x › one is the name of several scenarios',
    ]);
  });
});

describe('tests that are named', () => {
  it('are calls that run, not words', () => {
    expect(testTitles('test/bdd/fixtures/titles.ts')).toEqual([
      ...['is run', 'is run for %s', 'is run for one', 'is run for two', '%s: is run', 'red'],
      ...['is run as ', 'runs too'],
    ]);
    expect(testTitles('test/nowhere.test.ts')).toEqual([]);
  });
});

describe('results', () => {
  const home = { kind: 'test' as const, file: 'a.test.ts', name: 'holds for %s (', long: false };
  const outline = {
    kind: 'scenario' as const,
    file: 'x.feature',
    feature: 'X',
    name: '<n>',
    runs: ['1', '2'],
    long: true,
  };
  const test = (name: string, result: TestSeen['result']): TestSeen => ({ file: 'a.test.ts', name, result });
  const run = (name: string, result: TestSeen['result']): TestSeen => ({
    ...test(`Scenario Outline: ${name}`, result),
    scenario: { feature: 'Feature: X', name },
  });

  it('of a test are those of all that its name begins, as far as they ran', () => {
    expect(resultOf(home, [test('holds for 1 (one)', 'passed'), test('other', 'failed')])).toBe('passed');
    expect(resultOf(home, [test('holds for 1 (one)', 'passed'), test('holds for 2 (two)', 'failed')])).toBe('failed');
    expect(resultOf(home, [test('holds for 1 (one)', 'not run')])).toBe('not run');
    expect(resultOf(home, [test('other', 'passed'), test('holds for 1', 'passed')])).toBe('not run');
  });

  it('of a scenario need all its examples', () => {
    expect(resultOf(outline, [run('1', 'passed'), run('2', 'passed')])).toBe('passed');
    expect(resultOf(outline, [run('1', 'passed')])).toBe('not run');
    expect(resultOf(outline, [run('1', 'passed'), run('2', 'failed')])).toBe('failed');
  });

  it('stand on the page and in the summary', () => {
    const some = [
      { id: 'A-1', must: 'a', homes: [home, outline] },
      { id: 'B-2', must: 'b', homes: [outline] },
      { id: 'C-3', must: 'c', homes: [home] },
    ];
    const of = (one: object) => (one === home ? 'failed' : 'not run');
    const page = pageOf(some, of);
    expect(page).toContain('3 requirements: 0 passed, 2 failed, 1 not run.');
    expect(page).toContain(
      '| A-1 | a | a.test.ts › holds for %s ( **failed**<br>x.feature › &lt;n> *long* **not run** | failed |',
    );
    expect(page).toContain('| B-2 *long* | b |');
    const lines = summaryOf(some, (one) => (one === home ? 'passed' : 'not run')).split('\n');
    expect(lines).toEqual([
      '3 requirements: 1 passed, 0 failed, 1 in part, 1 not run',
      '  shown in part, the other homes were not run: A-1',
      '  not run: B-2',
    ]);
    expect(summaryOf(some, of)).toContain('  A-1 failed: a.test.ts › holds for %s (');
  });
});

describe('a feature', () => {
  const feature = (text: string) => () => featureOf(`Feature: X\n${text}`, 'x.feature');

  it.each([
    ['Rule: R\n  Scenario: S\n    Then a thing', 'rules are not read here'],
    ['Example: S\n  Then a thing', 'write Scenario'],
    ['Scenario: S\n  Given a thing', 'without Then'],
    ['Scenario:\n  Then a thing', 'needs a name'],
    [
      'Scenario Outline: S <n>\n  Then <n>\n  Examples:\n    | n |\n    | 1 |\n  Examples:\n    | n |\n    | 2 |',
      'one block',
    ],
    ['Scenario Outline: S <n>\n  Then <n>\n  Examples:\n    | n |', 'never run'],
    ['', 'no scenario'],
    ['Scenario: S\n  Perhaps a thing\n  Then a thing', 'this is none: Perhaps a thing'],
    ['Scenario: S\n  Then a thing\n  Perhaps a thing', 'x.feature is no Gherkin'],
  ])('that would not be run as it stands is refused: %j', (text, why) => {
    expect(feature(text)).toThrow(why);
  });

  it('tells its scenarios with tags and examples, and the steps as they are run', () => {
    const text = `  Background:
    Given a house
  @A-1
  Scenario Outline: One of <n>
    Then <n> things
    Examples:
      | n |
      | 1 |
      | 2 |`;
    const { scenarios, steps } = feature(text)();
    expect(scenarios).toEqual([{ name: 'One of <n>', runs: ['One of 1', 'One of 2'], tags: ['@A-1'] }]);
    expect(steps.map((step) => step.text)).toEqual(['a house', '1 things', '2 things']);
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
