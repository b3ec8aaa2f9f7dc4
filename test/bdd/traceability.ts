/** From each requirement to where it is shown: scenarios that carry its tag, and tests that are named for it. */
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';
import type { Feature } from './gherkin.js';

const RequirementsSchema = z.record(
  z.string(),
  z.strictObject({
    must: z.string(),
    /** `FILE › NAME`, the beginning of a test's name; the whole file where the name is left out. */
    tests: z.array(z.string()).default([]),
    /** What must be built before it can have a home. */
    awaits: z.string().optional(),
  }),
);

export interface Requirement {
  readonly id: string;
  readonly must: string;
  readonly awaits: string | null;
  /** In the order of the features, then the tests. */
  readonly homes: readonly Home[];
}

interface Home {
  readonly kind: 'scenario' | 'test';
  readonly file: string;
  readonly name: string;
  /** Left out by `npm test`. */
  readonly long: boolean;
}

export function readRequirements(file: string, features: readonly Feature[]): Requirement[] {
  const given = RequirementsSchema.parse(parse(readFileSync(file, 'utf8')));
  const scenarios = scenariosByTag(features);
  return Object.entries(given).map(([id, { must, tests, awaits }]) => ({
    id,
    must,
    awaits: awaits ?? null,
    homes: [...(scenarios.get(`@${id}`) ?? []), ...tests.map(testHome)],
  }));
}

function scenariosByTag(features: readonly Feature[]): Map<string, Home[]> {
  const homes = new Map<string, Home[]>();
  for (const { file, scenarios } of features) {
    for (const { name, tags } of scenarios) {
      const home: Home = { kind: 'scenario', file, name, long: tags.includes('@long') };
      for (const tag of tags) homes.set(tag, [...(homes.get(tag) ?? []), home]);
    }
  }
  return homes;
}

function testHome(text: string): Home {
  const [file = '', name = ''] = text.split(' › ');
  return { kind: 'test', file, name, long: file.endsWith('.long.test.ts') };
}

/** What is wrong with the table, in words; empty when each requirement has a home and each home is there. */
export function flawsOf(requirements: readonly Requirement[], features: readonly Feature[]): string[] {
  const known = new Set(requirements.map(({ id }) => `@${id}`));
  const tags = features.flatMap(({ file, scenarios }) =>
    scenarios.flatMap((one) => one.tags.map((tag) => [file, tag])),
  );
  const unknown = tags.filter(([, tag = '']) => /^@[A-Z]/.test(tag) && !known.has(tag));
  return [
    ...requirements.flatMap(flawsOfOne),
    ...unknown.map(([file, tag]) => `${file} carries ${tag}, which is no requirement`),
  ];
}

function flawsOfOne({ id, homes, awaits }: Requirement): string[] {
  const flaws: string[] = [];
  if (homes.length === 0 && awaits === null)
    flaws.push(`${id} has no home: tag a scenario with @${id}, or name a test`);
  if (homes.length > 0 && awaits !== null) flaws.push(`${id} has a home and still awaits ${awaits}: remove that`);
  for (const { kind, file, name } of homes) {
    if (kind === 'test' && !hasTest(file, name)) flaws.push(`${id} names a test that is not there: ${file} › ${name}`);
  }
  return flaws;
}

function hasTest(file: string, name: string): boolean {
  try {
    const text = readFileSync(file, 'utf8');
    return name === '' || text.includes(`'${name}`);
  } catch {
    return false;
  }
}

/** The table as a page, the same for the same requirements and features. */
export function pageOf(requirements: readonly Requirement[]): string {
  const homeless = requirements.filter(({ homes }) => homes.length === 0);
  const rows = requirements.map(({ id, must, homes, awaits }) => {
    const where = awaits === null ? homes.map(homeText).join('<br>') : `none yet: awaits ${awaits}`;
    return `| ${id} | ${cell(must)} | ${where} |`;
  });
  return `# Requirements and where they are shown

Made from contracts/requirements.yaml, the tags of test/features and the names of tests, by \`npm run traceability\`; a test
fails when it is stale, when a requirement has no home, or when a home is not there. That a scenario or test is listed says
where to look; whether it passes is for \`npm run bdd\` and \`npm test\` to say. *long*: run by \`npm run bdd\` and
\`npm run test:long\` alone.

${requirements.length} requirements, ${homeless.length} without a home.

| id | what must hold | shown by |
|---|---|---|
${rows.join('\n')}
`;
}

function homeText({ kind, file, name, long }: Home): string {
  const shortFile = kind === 'scenario' ? file.replace('test/features/', '') : file;
  return cell(`${shortFile}${name === '' ? '' : ` › ${name}`}${long ? ' *long*' : ''}`);
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}
