/** What a failed scenario leaves behind. The failures are meant: vitest expects them, as their tag says. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { proofFolder } from './proof.js';
import './scenario.js';
import { step } from './step.js';
import './steps/all.js';

vi.setConfig({ testTimeout: 600_000 });
for (const meaning of [/^the moon is (new)$/, /^the moon is (\w+w)$/]) step(meaning, () => {});
const passed = proofFolder('A failure', 'That did not happen this time');
mkdirSync(passed, { recursive: true });

await import(resolve('test/bdd/fixtures/failing.feature'));

function read(scenario: string, file: string): string {
  return readFileSync(join(proofFolder('A failure', scenario), file), 'utf8');
}

interface Exchange {
  readonly door: string;
  readonly path?: string;
  readonly output?: string;
  readonly answer?: { readonly status: number };
  readonly stream?: { readonly state: string; readonly frames: readonly { readonly event: string }[] };
}

function transcriptOf(scenario: string): Exchange[] {
  return JSON.parse(read(scenario, 'transcript.json')) as Exchange[];
}

describe('a scenario that failed', () => {
  it('says at which step, and what was there instead', () => {
    const text = read('On purpose', 'failure.txt');
    expect(text).toMatch(/On purpose\nline 12: the answer is 418\n.*expected 200 to be 418/s);
  });

  it('shows what went through the doors, streams and commands included', () => {
    const records = transcriptOf('On purpose');
    expect(records.map(({ path }) => path)).toEqual(expect.arrayContaining(['/v1/tasks', '/v1/capabilities']));
    const { frames } = records.find(({ door }) => door === 'rest-sse')?.stream ?? {};
    expect(frames?.map(({ event }) => event)).toEqual(expect.arrayContaining(['started', 'token', 'end']));
    expect(records.find(({ door }) => door === 'command line')?.output).toContain('--no-such-flag');
    expect(records.some(({ door }) => door === 'metrics')).toBe(true);
  });

  it('shows setting, tasks, pools, events, logs and metrics', () => {
    expect(read('On purpose', 'setting.json')).toContain('"id": "chat"');
    expect(read('On purpose', 'tasks.json')).toContain('"SUCCEEDED"');
    expect(read('On purpose', 'pools.json')).toContain('"chat-0"');
    expect(read('On purpose', 'events.json')).toContain('replica_preload');
    expect(read('On purpose', 'engineLogs.json')).toContain('loading model');
    expect(read('On purpose', 'log.jsonl')).toContain('task admitted');
    for (const file of ['metrics.txt', 'metricsBefore.txt'])
      expect(read('On purpose', file)).toContain('# TYPE tasks_enqueued_total');
  });

  it('for want of a step says how to write it, and of two that are meant which', () => {
    const undefinedStep = 'With a step that nobody wrote';
    expect(read(undefinedStep, 'failure.txt')).toContain('Undefined. Implement with the following snippet');
    expect(transcriptOf(undefinedStep).map(({ door }) => door)).toEqual(['command line']);
    expect(read('With a step that has two meanings', 'failure.txt')).toContain("Ambiguous step: 'the moon is new'");
  });

  it('shows why its control plane did not start', () => {
    const scenario = 'Of a control plane that does not start';
    expect(read(scenario, 'failure.txt')).toContain('a control plane with the pools');
    expect(read(scenario, 'setting.json')).toContain('postgresql://nobody@127.0.0.1:1/x');
    expect(read(scenario, 'log.jsonl')).toContain('127.0.0.1:1');
    expect(read(scenario, 'metrics.txt')).toMatch(/^not available: /);
  });

  it('shows what came before a restart, and what is behind a token', () => {
    const scenario = 'Where a token is asked for, after a restart';
    expect(transcriptOf(scenario).find(({ path }) => path === '/v1/tasks')?.answer?.status).toBe(202);
    expect(transcriptOf(scenario).at(-1)?.answer?.status).toBe(401);
    expect(read(scenario, 'log.jsonl').match(/"doors open"/g)).toHaveLength(2);
    expect(read(scenario, 'tasks.json')).toContain('"SUCCEEDED"');
    expect(read(scenario, 'events.json')).toContain('replica_preload');
    expect(read(scenario, 'metrics.txt')).toContain('# TYPE');
  });
});

it('a scenario that passed leaves nothing, and takes away what an earlier run of it left', () => {
  expect(existsSync(passed)).toBe(false);
});
