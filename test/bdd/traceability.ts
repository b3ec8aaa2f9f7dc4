/** What a run of tests showed of the requirements: a page, the same for the same results, and a summary. */
import type { Home, Requirement } from './requirements.js';

export const PAGE = 'contracts/traceability.md';

export type Result = 'passed' | 'failed' | 'not run';

/** One test that vitest knows of. */
export interface TestSeen {
  readonly file: string;
  readonly name: string;
  /** Of one that is a scenario. */
  readonly scenario?: { readonly feature: string; readonly name: string };
  readonly result: Result;
}

/** How a home fared: it passed when all of it that could run did, and something could. */
export function resultOf(home: Home, seen: readonly TestSeen[]): Result {
  const results = home.kind === 'scenario' ? runsOf(home, seen) : testsOf(home, seen);
  if (results.includes('failed')) return 'failed';
  if (home.kind === 'scenario' && results.includes('not run')) return 'not run';
  return results.includes('passed') ? 'passed' : 'not run';
}

function runsOf({ feature, runs }: Extract<Home, { kind: 'scenario' }>, seen: readonly TestSeen[]): Result[] {
  const scenarios = seen.filter(({ scenario }) => scenario?.feature === `Feature: ${feature}`);
  return runs.map((run) => scenarios.find(({ scenario }) => scenario?.name === run)?.result ?? 'not run');
}

function testsOf({ file, name }: Home, seen: readonly TestSeen[]): Result[] {
  // What an `each` writes into its titles is known only to its run.
  const parts = name.split(/%[a-zA-Z#]|\$[\w.]+/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const title = new RegExp(`^${parts.join('.*')}`, 's');
  const mine = seen.filter((test) => test.file === file && title.test(test.name));
  return mine.map(({ result }) => result);
}

/** Of all its homes the worst. */
function verdict(results: readonly Result[]): Result {
  if (results.includes('failed')) return 'failed';
  return results.length === 0 || results.includes('not run') ? 'not run' : 'passed';
}

/** The table as a page: without times and dates, so that one run that is all well writes what another one wrote. */
export function pageOf(requirements: readonly Requirement[], of: (home: Home) => Result): string {
  const rows = requirements.map(({ id, must, homes }) => {
    const result = verdict(homes.map(of));
    const where = homes.map((home) => homeText(home, of(home))).join('<br>');
    const long = homes.every((home) => home.long) ? ' *long*' : '';
    return { result, text: `| ${id}${long} | ${cell(must)} | ${where} | ${result} |` };
  });
  const count = (wanted: Result) => rows.filter(({ result }) => result === wanted).length;
  return `# Requirements and where they are shown

Written by \`npm run traceability\`, which runs every scenario and test that is listed here, from contracts/requirements.yaml, the
tags of test/features, and what became of each. *long*: left out by \`npm test\`; beside an id: nothing else shows it.
\`npm test\` fails when this page is not that of a run in which all of them passed, as requirements and homes stand now.

${requirements.length} requirements: ${count('passed')} passed, ${count('failed')} failed, ${count('not run')} not run.

| id | what must hold | shown by | result |
|---|---|---|---|
${rows.map(({ text }) => text).join('\n')}
`;
}

function homeText({ kind, file, name, long }: Home, result: Result): string {
  const shortFile = kind === 'scenario' ? file.replace('test/features/', '') : file;
  const fared = result === 'passed' ? '' : ` **${result}**`;
  return `${cell(`${shortFile}${name === '' ? '' : ` › ${name}`}`)}${long ? ' *long*' : ''}${fared}`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}

/** For the end of a run: how many, and which did not pass. What is left out because it is long is told apart. */
export function summaryOf(requirements: readonly Requirement[], of: (home: Home) => Result): string {
  const failed: string[] = [];
  const passed: string[] = [];
  const inPart: string[] = [];
  const notRun: string[] = [];
  for (const { id, homes } of requirements) {
    const results = homes.map(of);
    if (results.includes('failed')) {
      const which = homes.filter((home) => of(home) === 'failed').map(({ file, name }) => `${file} › ${name}`);
      failed.push(`  ${id} failed: ${which.join('; ')}`);
    } else if (verdict(results) === 'passed') passed.push(id);
    else (results.includes('passed') ? inPart : notRun).push(id);
  }
  const lists = [
    ['shown in part, the other homes were not run', inPart],
    ['not run', notRun],
  ] as const;
  return [
    `${requirements.length} requirements: ${passed.length} passed, ${failed.length} failed, ${inPart.length} in part, ${notRun.length} not run`,
    ...failed,
    ...lists.flatMap(([what, ids]) => (ids.length === 0 ? [] : [`  ${what}: ${ids.join(' ')}`])),
  ].join('\n');
}
