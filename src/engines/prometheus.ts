/** Reads the Prometheus text an engine exposes: enough of the format for gauges and counters. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const SAMPLE_LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?$/gm;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Values that are no number (`nan`) are left out: they say nothing. */
export function readSamples(text: string): readonly Sample[] {
  const samples: Sample[] = [];
  for (const [, name = '', labelText = '', valueText = ''] of text.matchAll(SAMPLE_LINE)) {
    const value = Number(valueText);
    if (Number.isNaN(value)) continue;
    const labels = Object.fromEntries([...labelText.matchAll(LABEL)].map(([, key = '', label = '']) => [key, label]));
    samples.push({ name, labels, value });
  }
  return samples;
}

/** Sum over the series of a name that carry these labels; null when there is none. */
export function sumOf(
  samples: readonly Sample[],
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | null {
  let sum: number | null = null;
  for (const sample of samples) {
    if (sample.name !== name) continue;
    if (Object.entries(labels).some(([key, label]) => sample.labels[key] !== label)) continue;
    sum = (sum ?? 0) + sample.value;
  }
  return sum;
}
