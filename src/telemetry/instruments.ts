/** The instruments of prom-client, with the label budgets kept: what is over one is told under `other`. */
import * as prom from 'prom-client';
import { SeenLabels } from './budget.js';

type Labels<T extends string> = prom.LabelValues<T>;

export class Counter<T extends string = string> extends prom.Counter<T> {
  constructor(configuration: prom.CounterConfiguration<T>) {
    super(configuration);
    const seen = new SeenLabels();
    // prom-client makes it a member of each instance, which an override would not see.
    const inc = this.inc.bind(this);
    this.inc = (labels?: Labels<T> | number | prom.IncreaseDataWithExemplar<T>, value?: number) => {
      if (typeof labels === 'object') inc(seen.within(labels as Labels<T>), value);
      else inc(labels);
    };
  }
}

export class Gauge<T extends string = string> extends prom.Gauge<T> {
  #seen = new SeenLabels();

  /** What it held is gone, and so are the places that its labels had. */
  override reset(): void {
    super.reset();
    // prom-client calls it in its constructor, too.
    if (#seen in this) this.#seen = new SeenLabels();
  }

  override set(labels: Labels<T> | number, value?: number): void {
    if (typeof labels === 'object') super.set(this.#seen.within(labels), value ?? 0);
    else super.set(labels);
  }

  override inc(labels?: Labels<T> | number, value?: number): void {
    if (typeof labels === 'object') super.inc(this.#seen.within(labels), value);
    else super.inc(labels);
  }

  override remove(labels?: Labels<T> | string): void {
    if (typeof labels === 'object') super.remove(this.#seen.within(labels));
  }
}

export class Histogram<T extends string = string> extends prom.Histogram<T> {
  constructor(configuration: prom.HistogramConfiguration<T>) {
    super(configuration);
    const seen = new SeenLabels();
    const observe = this.observe.bind(this);
    this.observe = (labels: Labels<T> | number | prom.ObserveDataWithExemplar<T>, value?: number) => {
      if (typeof labels === 'object') observe(seen.within(labels as Labels<T>), value ?? 0);
      else observe(labels);
    };
  }
}
