/**
 * Reads features as far as the checks need them: tags, scenarios, and the text of every step as it will be run. The parser
 * is Gherkin's own, the one that quickpickle runs them with; what quickpickle would run otherwise than Gherkin means it is
 * refused here.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import * as gherkin from '@cucumber/gherkin';

export const FEATURES = 'test/features';

export interface FeatureScenario {
  readonly name: string;
  /** What its runs are called: its name, in an outline once for each example with its values. */
  readonly runs: readonly string[];
  /** Those of its feature too, with their @. */
  readonly tags: readonly string[];
}

export interface FeatureStep {
  /** Of an outline with the values of one example. */
  readonly text: string;
  /** `FILE:LINE` */
  readonly place: string;
}

export interface Feature {
  readonly file: string;
  readonly name: string;
  readonly scenarios: readonly FeatureScenario[];
  readonly steps: readonly FeatureStep[];
}

/** @param path a file, or a folder with all that lie in it. */
export function featureFiles(path: string): string[] {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path.endsWith('.feature') ? [path] : [];
  const names = readdirSync(path, { recursive: true, encoding: 'utf8' });
  return names
    .filter((name) => name.endsWith('.feature'))
    .map((name) => join(path, name))
    .toSorted();
}

type Document = ReturnType<gherkin.Parser<gherkin.AstBuilder>['parse']>;
type Child = NonNullable<Document['feature']>['children'][number];
type Outline = NonNullable<Child['scenario']>;

function parse(text: string, file: string): Document {
  let count = 0;
  const newId = () => String(count++);
  const parser = new gherkin.Parser(new gherkin.AstBuilder(newId), new gherkin.GherkinClassicTokenMatcher());
  try {
    return parser.parse(text);
  } catch (cause) {
    throw new Error(`${file} is no Gherkin: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

export function readFeature(file: string): Feature {
  return featureOf(readFileSync(file, 'utf8'), file);
}

/** @throws where it is no feature, or where it would not be run as it stands. */
export function featureOf(text: string, file: string): Feature {
  const { feature } = parse(text, file);
  if (feature === undefined) throw new Error(`${file} has no feature`);
  const scenarios: FeatureScenario[] = [];
  const steps: FeatureStep[] = [];
  for (const child of feature.children) {
    if (child.rule !== undefined) throw new Error(`${file}:${child.rule.location.line}: rules are not read here`);
    if ((child.background?.description ?? '') !== '') throw new Error(`${file}: a background has steps alone`);
    for (const step of child.background?.steps ?? [])
      steps.push({ text: step.text, place: `${file}:${step.location.line}` });
    if (child.scenario === undefined) continue;
    const { scenario } = child;
    refuse(scenario, file);
    const fills = fillsOf(scenario);
    const tags = [...feature.tags, ...scenario.tags].map(({ name }) => name);
    scenarios.push({ name: scenario.name, runs: fills.map((fill) => fill(scenario.name)), tags });
    for (const fill of fills)
      for (const { text: words, location } of scenario.steps)
        steps.push({ text: fill(words), place: `${file}:${location.line}` });
  }
  if (scenarios.length === 0) throw new Error(`${file} has no scenario`);
  return { file, name: feature.name, scenarios, steps };
}

function refuse({ name, description, steps, examples, keyword, location }: Outline, file: string): void {
  const refused = (why: string) => new Error(`${file}:${location.line}: ${why}`);
  if (name === '') throw refused('a scenario needs a name, by which it is told');
  if (description !== '') throw refused(`a scenario has steps alone, and this is none: ${description.trim()}`);
  if (!steps.some(({ keywordType }) => keywordType === 'Outcome'))
    throw refused('a scenario without Then shows nothing');
  const isOutline = examples.length > 0;
  if (keyword !== (isOutline ? 'Scenario Outline' : 'Scenario'))
    throw refused(`${keyword}: write Scenario, or Scenario Outline above examples`);
  // Quickpickle runs the first block, and knows no tags of one.
  if (examples.length > 1 || examples.some(({ tags }) => tags.length > 0))
    throw refused('an outline has one block of examples, without tags');
  if (isOutline && examples[0]?.tableBody.length === 0) throw refused('an outline without examples is never run');
}

/** What writes the values of an example into a text, for each; without examples what leaves it as it is. */
function fillsOf({ examples }: Outline): ((text: string) => string)[] {
  const [block] = examples;
  if (block === undefined) return [(text) => text];
  const keys = block.tableHeader?.cells.map(({ value }) => value) ?? [];
  return block.tableBody.map(
    ({ cells }) =>
      (text) =>
        keys.reduce((so, key, at) => so.replaceAll(`<${key}>`, cells[at]?.value ?? ''), text),
  );
}

export interface StepProblems {
  /** Steps that no definition matches. */
  readonly undefined: readonly string[];
  /** Steps that several match. */
  readonly ambiguous: readonly string[];
  /** Definitions that no step matches. */
  readonly unused: readonly string[];
}

export function problemsOf(steps: readonly FeatureStep[], definitions: readonly RegExp[]): StepProblems {
  const matching = steps.map((step) => ({ ...step, found: definitions.filter((one) => one.test(step.text)) }));
  const used = new Set(matching.flatMap(({ found }) => found));
  // Examples may make one step many times.
  const places = (some: readonly FeatureStep[]) => [...new Set(some.map(({ text, place }) => `${place} ${text}`))];
  return {
    undefined: places(matching.filter(({ found }) => found.length === 0)),
    ambiguous: places(matching.filter(({ found }) => found.length > 1)),
    unused: definitions.filter((one) => !used.has(one)).map(String),
  };
}
