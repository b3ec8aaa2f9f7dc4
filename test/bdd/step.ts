/** Steps as the checks see them: quickpickle gets each, and the list says which are undefined, ambiguous or unused. */
import { Given } from './quickpickle.js';
import type { Scenario } from './scenario.js';

/** A table below a step, or a text. */
export interface StepData {
  raw(): string[][];
  hashes(): Record<string, string>[];
  toString(): string;
}

const patterns: RegExp[] = [];

/**
 * Defines a step, whatever its keyword: quickpickle does not tell them apart. A group of digits comes as a number, any
 * other as a string; a table or text below the step comes last.
 */
export function step<Parameters extends unknown[]>(
  pattern: RegExp,
  run: (scenario: Scenario, ...parameters: Parameters) => unknown,
): void {
  if (!pattern.source.startsWith('^') || !pattern.source.endsWith('$'))
    throw new Error(`${pattern} would match a part of a step — begin it with ^ and end it with $`);
  patterns.push(pattern);
  Given(pattern, run as (...parameters: never[]) => unknown);
}

export function definedSteps(): readonly RegExp[] {
  return patterns;
}
