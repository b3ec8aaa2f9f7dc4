/** What is used of quickpickle, with types: its own are written for bundlers, and say nothing under Node's resolution. */
import * as quickpickle from 'quickpickle';
import type { TestContext } from 'vitest';

/** One scenario, as quickpickle makes it. */
interface Base {
  readonly context: TestContext;
  readonly info: {
    /** With its keyword: `Feature: …`. */
    readonly feature: string;
    readonly scenario: string;
    readonly tags: readonly string[];
    /** Of the step that is run. */
    readonly step?: string;
    readonly line?: number;
    readonly errors: readonly unknown[];
  };
  init(): Promise<void>;
}

interface Used {
  readonly QuickPickleWorld: new (context: TestContext, info: unknown) => Base;
  setWorldConstructor(scenario: new (context: TestContext, info: unknown) => Base): void;
  Given(pattern: RegExp, run: (...parameters: never[]) => unknown): void;
}

export const { QuickPickleWorld, setWorldConstructor, Given } = quickpickle as unknown as Used;

declare module 'vitest' {
  interface TaskMeta {
    /** Of a test that is a scenario: as the feature names them, the name with the values of its example. */
    scenario?: { readonly feature: string; readonly name: string };
  }
}
