/** Takes features into the test file that calls this; quickpickle makes tests of them as they are imported. */
import { resolve } from 'node:path';
import { test, vi } from 'vitest';
import { FEATURES, featureFiles } from './gherkin.js';
import './scenario.js';
import './steps/all.js';

/** @param isWanted which of them, by path; LLORCH_BDD_FEATURE_PATH narrows them to a file or a folder. */
export async function runFeatures(isWanted: (file: string) => boolean): Promise<void> {
  // Several waits, each with a deadline of its own.
  vi.setConfig({ testTimeout: 600_000, hookTimeout: 120_000 });
  const wanted = chosenFeatures(process.env.LLORCH_BDD_FEATURE_PATH ?? '').filter(isWanted);
  for (const file of wanted) await import(resolve(file));
  if (wanted.length === 0) test.skip('no feature of this part was asked for');
}

/** @param path a feature or a folder of some; all where it is empty. */
export function chosenFeatures(path: string): string[] {
  if (path === '') return featureFiles(FEATURES);
  const files = featureFiles(resolve(path)).map((file) => file.slice(resolve('.').length + 1));
  if (files.length === 0) throw new Error(`LLORCH_BDD_FEATURE_PATH=${path} is no feature, and no folder with one`);
  return files;
}
