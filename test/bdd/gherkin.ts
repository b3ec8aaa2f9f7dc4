/**
 * Reads features as far as the checks need them: tags, scenarios, and the text of every step as it will be run. Running
 * them is quickpickle's, with the parser of Gherkin itself; what is not read here is refused, never passed over.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

export interface FeatureScenario {
  readonly name: string;
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

const STEP = /^(?:Given|When|Then|And|But) (.+)$/;
const SCENARIO = /^(Scenario|Scenario Outline): (.+)$/;

/** One reading of one file, line by line. */
class Reading {
  name = '';
  readonly scenarios: FeatureScenario[] = [];
  readonly steps: FeatureStep[] = [];
  readonly #file: string;
  #featureTags: readonly string[] = [];
  #tags: string[] = [];
  #inText = false;
  /** Steps of the outline that is read, until its examples are known. */
  #outline: FeatureStep[] | null = null;
  #header: readonly string[] | null = null;
  #inExamples = false;

  constructor(file: string) {
    this.#file = file;
  }

  line(raw: string, number: number): void {
    const line = raw.trim();
    if (line.startsWith('"""')) this.#inText = !this.#inText;
    else if (this.#inText || line === '' || line.startsWith('#')) return;
    else if (line.startsWith('@')) this.#tags.push(...line.split(/\s+/));
    else if (line.startsWith('|')) this.#row(line);
    else if (!this.#heading(line) && !this.#step(line, number)) this.#other(line, number);
  }

  #heading(line: string): boolean {
    const [, kind, name = ''] = SCENARIO.exec(line) ?? [];
    if (line.startsWith('Feature: ')) {
      this.name = line.slice('Feature: '.length);
      this.#featureTags = this.#takeTags();
    } else if (kind !== undefined) {
      this.scenarios.push({ name, tags: [...this.#featureTags, ...this.#takeTags()] });
      this.#outline = kind === 'Scenario Outline' ? [] : null;
      this.#inExamples = false;
    } else if (line === 'Examples:') {
      this.#inExamples = true;
      this.#header = null;
    } else if (line !== 'Background:') return false;
    return true;
  }

  #step(line: string, number: number): boolean {
    const text = STEP.exec(line)?.[1];
    if (text === undefined) return false;
    (this.#outline ?? this.steps).push({ text, place: `${this.#file}:${number}` });
    return true;
  }

  /** Cells of examples make steps; those of a step's own table are its business. */
  #row(line: string): void {
    if (!this.#inExamples || this.#outline === null) return;
    const cells = line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim());
    const header = this.#header;
    if (header === null) {
      this.#header = cells;
      return;
    }
    const fill = (text: string) => header.reduce((so, key, at) => so.replaceAll(`<${key}>`, cells[at] ?? ''), text);
    this.steps.push(...this.#outline.map(({ text, place }) => ({ text: fill(text), place })));
  }

  /** Words below the name of the feature are for people. */
  #other(line: string, number: number): void {
    if (this.scenarios.length > 0 || this.steps.length > 0)
      throw new Error(`${this.#file}:${number} is neither a step nor a heading: ${line}`);
  }

  #takeTags(): string[] {
    const tags = this.#tags;
    this.#tags = [];
    return tags;
  }
}

export function readFeature(file: string): Feature {
  const reading = new Reading(file);
  for (const [index, line] of readFileSync(file, 'utf8').split('\n').entries()) reading.line(line, index + 1);
  const { name, scenarios, steps } = reading;
  if (name === '') throw new Error(`${file} names no feature`);
  return { file, name, scenarios, steps };
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
