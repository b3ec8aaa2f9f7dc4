/** What a failed scenario leaves behind. The failures are meant: vitest expects them, as their tag says. */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { proofFolder } from './proof.js';
import './scenario.js';
import './steps/all.js';

await import(resolve('test/bdd/fixtures/failing.feature'));

describe('a scenario that failed', () => {
  const read = (file: string) => readFileSync(join(proofFolder('A failure', 'On purpose'), file), 'utf8');

  it('says at which step, and what was there instead', () => {
    expect(read('failure.txt')).toMatch(/On purpose\nline 11: the answer is 418\n.*expected 200 to be 418/s);
  });

  it('shows what went through the doors, the stream included', () => {
    const records = JSON.parse(read('transcript.json')) as {
      door: string;
      path?: string;
      frames?: { event: string }[];
    }[];
    expect(records.map(({ path }) => path)).toEqual(expect.arrayContaining(['/v1/tasks', '/v1/capabilities']));
    const { frames } = records.find(({ door }) => door === 'rest-sse') ?? {};
    expect(frames?.map(({ event }) => event)).toEqual(expect.arrayContaining(['started', 'token', 'end']));
  });

  it('shows events, log and metrics', () => {
    const { data } = JSON.parse(read('events.json')) as { data: { pools: { events: { edges: unknown[] } }[] } };
    expect(data.pools[0]?.events.edges.length).toBeGreaterThan(0);
    expect(read('log.jsonl')).toContain('task admitted');
    expect(read('metrics.txt')).toContain('tasks_enqueued_total{');
  });

  it('for want of a step says how to write it', () => {
    const folder = proofFolder('A failure', 'With a step that nobody wrote');
    expect(readFileSync(join(folder, 'failure.txt'), 'utf8')).toContain(
      'Undefined. Implement with the following snippet',
    );
    expect(existsSync(join(folder, 'transcript.json'))).toBe(true);
  });
});
