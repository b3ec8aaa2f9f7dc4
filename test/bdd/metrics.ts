/** One scrape of the metrics, asked about series by name and labels. */
import { parseMetrics, type Sample } from '../support/metrics.js';

/** What a histogram's series are called beside it. */
const SUFFIX = /_(?:count|sum|bucket)$/;

export class Metrics {
  readonly text: string;
  readonly #samples: ReadonlyMap<string, readonly Sample[]>;

  constructor(text: string) {
    this.text = text;
    this.#samples = parseMetrics(text);
  }

  series(name: string): readonly Sample[] {
    return this.#samples.get(name) ?? [];
  }

  linesOf(names: readonly string[]): string[] {
    return this.text.split('\n').filter((line) => names.some((name) => line.startsWith(name)));
  }

  /** Every counter by its name and labels; what the process and its runtime count is left out. */
  counters(): ReadonlyMap<string, string> {
    const lines = this.text
      .split('\n')
      .filter((line) => /^(?!process_|nodejs_|http_)[a-z_]+_(?:total|count)\b/.test(line));
    return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), line.slice(line.lastIndexOf(' ') + 1)]));
  }

  /**
   * The sum of the series with these labels; null where there is none yet.
   * @param labels `name=value`, with commas between them.
   * @throws where no metric has that name, or none of its series such a label: a slip of the pen counts nothing.
   */
  sum(name: string, labels: string): number | null {
    if (!this.text.includes(`# TYPE ${name} `) && !this.text.includes(`# TYPE ${name.replace(SUFFIX, '')} `))
      throw new Error(`there is no metric ${name}`);
    const wanted = labels.split(/,\s*/).flatMap((pair) => (pair === '' ? [] : [pair.split('=')]));
    const all = this.series(name);
    for (const [label = ''] of wanted) {
      if (all.length > 0 && all.every((sample) => !(label in sample.labels)))
        throw new Error(`${name} has no label ${label}`);
    }
    const found = all.filter((sample) => wanted.every(([label = '', value = '']) => sample.labels[label] === value));
    return found.length === 0 ? null : found.reduce((sum, { value }) => sum + value, 0);
  }
}
