/** The Prometheus text format, as far as the protocols write it alike. Pure. */

export interface Sample {
  /** After the family's name: `_sum`. */
  readonly suffix?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help?: string;
  readonly samples: readonly Sample[];
}

type NumberFormat = (value: number) => string;

export function familyText({ name, type, help, samples }: Family, format: NumberFormat = String): string {
  const lines = samples.map(
    ({ suffix = '', labels = {}, value }) => `${name}${suffix}${labelsText(labels)} ${format(value)}\n`,
  );
  const about = help === undefined ? '' : `# HELP ${name} ${help}\n`;
  return `${about}# TYPE ${name} ${type}\n${lines.join('')}`;
}

/** In the order of the alphabet, as all the engines have them. */
function labelsText(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.keys(labels)
    .sort()
    .map((name) => `${name}="${escaped(labels[name] ?? '')}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escaped(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');
}

export class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #count = 0;
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  add(value: number, times = 1): void {
    this.#count += times;
    this.#sum += value * times;
    for (const [place, bound] of this.#bounds.entries()) {
      if (value <= bound) this.#counts[place] = (this.#counts[place] ?? 0) + times;
    }
  }

  samples(labels: Readonly<Record<string, string>> = {}, format: NumberFormat = String): readonly Sample[] {
    const bucket = (le: string, value: number): Sample => ({ suffix: '_bucket', labels: { ...labels, le }, value });
    return [
      ...this.#bounds.map((bound, place) => bucket(format(bound), this.#counts[place] ?? 0)),
      bucket('+Inf', this.#count),
      { suffix: '_sum', labels, value: this.#sum },
      { suffix: '_count', labels, value: this.#count },
    ];
  }
}
