/** Metrics as Prometheus scrapes them, and the log as it is written. */
import { expect } from 'vitest';
import { type Sample, scrape } from '../../support/metrics.js';
import { matches, mismatches } from '../matching.js';
import { type StepData, step } from '../step.js';

type Metrics = ReadonlyMap<string, readonly Sample[]>;

/** @param labels `name=value`, with commas between them. */
function sumOf(metrics: Metrics, name: string, labels: string): number | null {
  const wanted = labels.split(/,\s*/).flatMap((pair) => (pair === '' ? [] : [pair.split('=')]));
  const found = (metrics.get(name) ?? []).filter((sample) =>
    wanted.every(([label = '', value = '']) => sample.labels[label] === value),
  );
  return found.length === 0 ? null : found.reduce((sum, { value }) => sum + value, 0);
}

step(/^the metrics come to hold:$/, async (scenario, table: StepData) => {
  const missed = async () => {
    const metrics = await scrape(scenario.doors.url);
    return table.raw().flatMap(([name = '', labels = '', cell = '']) => {
      const value = sumOf(metrics, name, labels);
      return matches(value, cell) ? [] : [`${name}{${labels}} is ${value}, not ${cell}`];
    });
  };
  await expect.poll(missed).toEqual([]);
});

/** Since the scenario came to its control plane. */
step(/^the metrics have grown by:$/, async (scenario, table: StepData) => {
  const missed = async () => {
    const metrics = await scrape(scenario.doors.url);
    return table.raw().flatMap(([name = '', labels = '', cell = '']) => {
      const grown = (sumOf(metrics, name, labels) ?? 0) - (sumOf(scenario.metricsBefore, name, labels) ?? 0);
      return matches(grown, cell) ? [] : [`${name}{${labels}} has grown by ${grown}, not ${cell}`];
    });
  };
  await expect.poll(missed).toEqual([]);
});

step(/^the metrics have the labels:$/, async (scenario, table: StepData) => {
  const metrics = await scrape(scenario.doors.url);
  for (const [name = '', labels = ''] of table.raw()) {
    const found = metrics.get(name) ?? metrics.get(`${name}_count`) ?? [];
    expect(found.length, name).toBeGreaterThan(0);
    for (const sample of found) expect(Object.keys(sample.labels).toSorted().join(' '), name).toBe(labels);
  }
});

function linesOf(lines: readonly string[]): Record<string, unknown>[] {
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** One line of this scenario that has all of it. */
step(/^a log line tells:$/, async (scenario, table: StepData) => {
  const rows = scenario.rows(table);
  const best = () => {
    const missed = linesOf(scenario.logLines()).map((line) => mismatches(line, rows));
    return missed.toSorted((one, other) => one.length - other.length)[0];
  };
  await expect.poll(best).toEqual([]);
});

/** From its admission to its end. */
step(/^every log line of "(\w+)" tells:$/, async (scenario, name: string, table: StepData) => {
  const own = () => linesOf(scenario.logLines()).filter((line) => line.job_id === scenario.taskId(name));
  await expect.poll(() => own().map(({ msg }) => msg)).toContain('stream ended');
  expect(own().map(({ msg }) => msg)).toContain('task admitted');
  for (const line of own()) expect(mismatches(line, scenario.rows(table)), String(line.msg)).toEqual([]);
});

/** In logs, events, transcripts and metrics. */
step(/^nothing that was written holds "([^"]+)"$/, async (scenario, secret: string) => {
  const { database } = scenario.world;
  const rows = await database.query(
    `SELECT to_jsonb(e)::text AS text FROM pool_events e UNION ALL SELECT content::text FROM artifacts`,
  );
  const metrics = await (await fetch(`${scenario.doors.url}/metrics`)).text();
  const written = [...scenario.world.logLines(), ...rows.map(({ text }) => String(text)), metrics];
  expect(written.filter((text) => text.includes(secret))).toEqual([]);
});
