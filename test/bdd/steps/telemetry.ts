/** Metrics as Prometheus scrapes them, and the log as it is written. */
import { expect } from 'vitest';
import { eventually } from '../eventually.js';
import { matches, mismatches } from '../matching.js';
import { shownWritings } from '../shows.js';
import { type StepData, step } from '../step.js';

function namesOf(table: StepData): string[] {
  return table.raw().map(([name = '']) => name);
}

step(/^the metrics come to hold:$/, async (scenario, table: StepData) => {
  const missed = async () => {
    const metrics = await scenario.doors.metrics(namesOf(table));
    return table.raw().flatMap(([name = '', labels = '', cell = '']) => {
      const value = metrics.sum(name, labels);
      return matches(value, cell) ? [] : [`${name}{${labels}} is ${value}, not ${cell}`];
    });
  };
  await eventually(missed).toEqual([]);
});

/** Since the scenario came to its control plane. */
step(/^the metrics have grown by:$/, async (scenario, table: StepData) => {
  const missed = async () => {
    const metrics = await scenario.doors.metrics(namesOf(table));
    return table.raw().flatMap(([name = '', labels = '', cell = '']) => {
      const grown = (metrics.sum(name, labels) ?? 0) - (scenario.metricsBefore.sum(name, labels) ?? 0);
      return matches(grown, cell) ? [] : [`${name}{${labels}} has grown by ${grown}, not ${cell}`];
    });
  };
  await eventually(missed).toEqual([]);
});

step(/^the metrics have the labels:$/, async (scenario, table: StepData) => {
  const metrics = await scenario.doors.metrics(namesOf(table));
  for (const [name = '', labels = ''] of table.raw()) {
    const found = [...metrics.series(name), ...metrics.series(`${name}_count`)];
    expect(found.length, name).toBeGreaterThan(0);
    for (const sample of found) expect(Object.keys(sample.labels).toSorted().join(' '), name).toBe(labels);
  }
});

function linesOf(lines: readonly string[]): Record<string, unknown>[] {
  // What is no line of the log is what Node says of a crash.
  const whole = lines.filter((line) => line.startsWith('{') && line.endsWith('}'));
  return whole.map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** One line of this scenario that has all of it. */
step(/^a log line tells:$/, async (scenario, table: StepData) => {
  const rows = scenario.rows(table);
  const best = () => {
    const missed = linesOf(scenario.logLines()).map((line) => mismatches(line, rows));
    return missed.toSorted((one, other) => one.length - other.length)[0];
  };
  await eventually(best).toEqual([]);
});

/** In the log, the logs of engines, events, transcripts, artifacts, operations and metrics. */
step(/^nothing that was written holds "([^"]+)"$/, async (scenario, secret: string) => {
  const metrics = await scenario.doors.metrics();
  const written = [...scenario.plane.lines(), ...(await shownWritings(scenario.doors)), metrics.text];
  expect(written.filter((text) => text.includes(secret))).toEqual([]);
});
