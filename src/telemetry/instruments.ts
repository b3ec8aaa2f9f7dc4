/** The instruments of prom-client, with the label budgets kept: what is over one is told under `other`. */
import * as prom from 'prom-client';
import { SeenLabels } from './budget.js';

type Labels<T extends string> = prom.LabelValues<T>;

export class Counter<T extends string = string> extends prom.Counter<T> {
  readonly #seen = new SeenLabels();

  override inc(labels?: Labels<T> | number | prom.IncreaseDataWithExemplar<T>, value?: number): void {
    if (typeof labels === 'object') super.inc(this.#seen.within(labels as Labels<T>), value);
    else super.inc(labels);
  }
}

export class Gauge<T extends string = string> extends prom.Gauge<T> {
  readonly #seen = new SeenLabels();

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
  readonly #seen = new SeenLabels();

  override observe(labels: Labels<T> | number | prom.ObserveDataWithExemplar<T>, value?: number): void {
    if (typeof labels === 'object') super.observe(this.#seen.within(labels as Labels<T>), value ?? 0);
    else super.observe(labels);
  }
}
